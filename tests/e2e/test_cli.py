"""What people run against a cluster: `conch push` to a claim, `conch why` and the same as kubectl's plugin."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cluster import binaries
from tests.e2e.conftest import SAMPLE, Namespace
from tests.support.model_store import ModelStore

NO_GPU = {"count": 0}


def _run(namespace: Namespace, *command: str) -> subprocess.CompletedProcess[str]:
    programs = os.pathsep.join([str(binaries.ensure("kubectl")), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "KUBECONFIG": str(namespace.cluster.kubeconfig), "PATH": programs}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)


def test_a_model_is_pushed_to_a_claim_and_served_from_it(namespace: Namespace, tmp_path: Path) -> None:
    model = tmp_path / "digits"
    model.mkdir()
    (model / "digits.onnx").write_bytes(SAMPLE.read_bytes())
    with namespace.volume("disk", tmp_path / "disk"):
        claim: dict[str, object] = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "models", "namespace": namespace.name},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": f"disk-{namespace.name}",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }
        namespace.cluster.apply([claim])
        command = ("conch", "push", str(model), "pvc://models/digits/1", "--image", "localhost/conch:dev")
        pushed = _run(namespace, *command, "-n", namespace.name)
        assert pushed.returncode == 0, pushed.stderr
        source = yaml.safe_load(pushed.stdout)["source"]
        namespace.deploy("digits", source["uri"], gpu=NO_GPU, model={"source": source})
        namespace.wait_ready("digits")
        namespace.wait_answers("digits")
        again = _run(namespace, *command, "-n", namespace.name)
        assert again.returncode != 0, "nothing is replaced unless that is asked for"
        assert "already" in again.stderr


@pytest.mark.parametrize("command", [("conch",), ("kubectl", "conch")])
def test_why_shows_the_check_that_failed_and_then_that_none_does(
    namespace: Namespace, store: ModelStore, command: tuple[str, ...]
) -> None:
    path = f"/{namespace.name}/late.onnx"
    namespace.deploy("digits", store.uri(path), gpu=NO_GPU)
    namespace.wait_reason("digits", "SourceNotFound")
    told = _run(namespace, *command, "why", "digits", "-n", namespace.name)
    assert told.returncode == 1, told.stderr
    (check,) = (line for line in told.stdout.splitlines() if line.startswith("✗"))
    assert "SourceNotFound" in check
    assert path in told.stdout
    (pod,) = namespace.pods("digits")
    assert pod["metadata"]["name"] in told.stdout
    store.put(path, SAMPLE.read_bytes())
    namespace.wait_ready("digits")
    told = _run(namespace, *command, "why", "digits", "-n", namespace.name)
    failed = [line for line in told.stdout.splitlines() if line.startswith("✗")]
    assert (told.returncode, failed) == (0, []), told.stdout
    assert namespace.mdep("digits")["status"]["source"]["digest"] in told.stdout
