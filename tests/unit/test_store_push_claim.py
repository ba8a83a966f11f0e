"""Pushing to a claim, with a kubectl that runs what the pod would run on a folder of this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import pytest

from conch.api.source import ClaimSource
from conch.store.digest import tree_digest
from conch.store.errors import StoreError
from conch.store.push import claim
from conch.store.push.meter import Meter, Step
from conch.store.push.pack import write_tar
from conch.store.push.settings import PushSettings
from conch.store.push.tree import Tree, read_tree

KUBECTL = f"""#!{sys.executable}
import json, os, pathlib, subprocess, sys
state = pathlib.Path(os.environ["FAKE_STATE"])
arguments = [each for each in sys.argv[1:] if not each.startswith("--namespace=")]
with (state / "calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + chr(10))
match arguments:
    case ["create", "-f", "-"]:
        (state / "pod.json").write_text(sys.stdin.read())
    case ["get", "pod", name, "-o", "json"]:
        assert name == json.loads((state / "pod.json").read_text())["metadata"]["name"]
        print((state / "status").read_text())
    case ["delete", "pod", *_]:
        (state / "pod.json").unlink()
    case ["exec", *rest]:
        command = [each.replace("/claim", str(state / "claim")) for each in rest[rest.index("--") + 1:]]
        if (state / f"{{command[0]}}.fails").exists():
            sys.exit((state / f"{{command[0]}}.fails").read_text())
        if command[0] == "conch":
            command = [sys.executable, "-c", "from conch.cli import main; main()", *command[1:]]
        sys.exit(subprocess.run(command).returncode)
    case _:
        sys.exit(f"what is {{arguments}}?")
"""
RUNNING = {"status": {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}}


@dataclass
class Cluster:
    """What the kubectl works on."""

    state: Path

    @property
    def claim(self) -> Path:
        return self.state / "claim"

    def status(self, status: dict[str, Any]) -> None:
        (self.state / "status").write_text(json.dumps(status))

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.state / "calls").read_text().splitlines()]

    def left_over(self) -> list[str]:
        pod = ["pod"] if (self.state / "pod.json").exists() else []
        return pod + [entry.name for entry in self.claim.iterdir() if entry.name.startswith(".")]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    state = tmp_path / "state"
    (state / "claim").mkdir(parents=True)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "kubectl").write_text(KUBECTL)
    (programs / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setenv("FAKE_STATE", str(state))
    monkeypatch.setattr(claim, "POLL_SECONDS", 0.01)
    made = Cluster(state)
    made.status(RUNNING)
    return made


def write(folder: Path, **files: bytes) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def push(model: Path, path: str = "team/m", **options: Any) -> None:
    settings = PushSettings(shown=f"pvc://models/{path}", meter=Meter(terminal=False), image="conch:1", **options)
    claim.push(ClaimSource(claim="models", path=path), read_tree(model, settings.meter), settings)


def test_a_tree_arrives_whole(cluster: Cluster, tmp_path: Path) -> None:
    model = write(tmp_path / "m", a=b"1" * 3_000_000, deep__b=b"2")
    push(model, namespace="team")
    assert tree_digest(cluster.claim / "team" / "m") == tree_digest(model)
    assert cluster.left_over() == []
    assert {call[0] for call in cluster.calls()} == {"--namespace=team"}


def test_the_pod_is_one_that_every_namespace_admits() -> None:
    settings = PushSettings(shown="pvc://models/m", meter=Meter(terminal=False), image="conch:1")
    spec = claim._manifest("conch-push-1", ClaimSource(claim="models", path="m"), settings)["spec"]
    [container] = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["image"] == "conch:1"
    assert spec["volumes"] == [{"name": "claim", "persistentVolumeClaim": {"claimName": "models"}}]


def test_what_is_there_is_replaced_only_when_that_is_asked_for(cluster: Cluster, tmp_path: Path) -> None:
    first, second = write(tmp_path / "first", a=b"1", b=b"2"), write(tmp_path / "second", c=b"3")
    push(first)
    with pytest.raises(StoreError, match="--overwrite"):
        push(second)
    assert tree_digest(cluster.claim / "team" / "m") == tree_digest(first)
    push(second, overwrite=True)
    assert tree_digest(cluster.claim / "team" / "m") == tree_digest(second)
    assert cluster.left_over() == []


def test_a_bare_file_keeps_its_name(cluster: Cluster, tmp_path: Path) -> None:
    file = write(tmp_path / "m", model=b"1") / "model"
    push(file, "exact/model")
    push(file, "below")
    assert (cluster.claim / "exact" / "model").read_bytes() == b"1"
    assert (cluster.claim / "below" / "model").read_bytes() == b"1"


@pytest.mark.parametrize(
    ("program", "said"),
    [("tar", "No space left on device"), ("conch", "no digest"), ("mkdir", "read-only file system")],
)
def test_nothing_is_left_of_a_push_that_fails(cluster: Cluster, tmp_path: Path, program: str, said: str) -> None:
    (cluster.state / f"{program}.fails").write_text(said)
    with pytest.raises(StoreError, match=said):
        push(write(tmp_path / "m", a=b"1" * 5_000_000))
    assert cluster.left_over() == []
    assert list(cluster.claim.iterdir()) == []


def test_other_bytes_than_were_sent_are_not_kept(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_another(tree: Tree, stream: IO[bytes], step: Step) -> None:
        write_tar(replace(tree, files=()), stream, step)

    monkeypatch.setattr(claim, "write_tar", write_another)
    with pytest.raises(StoreError, match="what arrived has the digest"):
        push(write(tmp_path / "m", a=b"1"))
    assert list(cluster.claim.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (
            {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]},
            "ImagePullBackOff: no such image",
        ),
        ({"containerStatuses": [{"state": {"terminated": {"reason": "Error"}}}]}, "Error"),
        ({"phase": "Failed", "message": "Pod was evicted"}, "Pod was evicted"),
    ],
)
def test_a_pod_that_does_not_start(cluster: Cluster, tmp_path: Path, status: dict[str, Any], said: str) -> None:
    cluster.status({"status": status})
    with pytest.raises(StoreError, match=said):
        push(write(tmp_path / "m", a=b"1"))
    assert cluster.left_over() == []


def test_a_pod_that_waits_for_too_long(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "START_SECONDS", 0.2)
    unbound = {"type": "PodScheduled", "status": "False", "message": "claim models not found"}
    cluster.status({"status": {"phase": "Pending", "conditions": [unbound]}})
    with pytest.raises(StoreError, match="claim models not found"):
        push(write(tmp_path / "m", a=b"1"))
    assert cluster.left_over() == []


def test_the_image_is_needed() -> None:
    with pytest.raises(StoreError, match="--image"):
        claim.check(PushSettings(shown="pvc://models/m", meter=Meter(terminal=False)))


def test_without_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StoreError, match="install it"):
        push(write(tmp_path / "m", a=b"1"))


def test_the_pod_goes_when_the_command_is_ended(cluster: Cluster, tmp_path: Path) -> None:
    cluster.status({"status": {"phase": "Pending"}})
    model = write(tmp_path / "m", a=b"1")
    command = ["push", str(model), "pvc://models/m", "--image", "conch:1"]
    with subprocess.Popen(
        [sys.executable, "-c", "from conch.cli import main; main()", *command],
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        deadline = time.monotonic() + 20
        while not (cluster.state / "pod.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.2)
        running.send_signal(signal.SIGTERM)
        out, _ = running.communicate(timeout=20)
    assert (out, running.returncode != 0) == (b"", True)
    assert cluster.left_over() == []
