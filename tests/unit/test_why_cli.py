"""`conch why` as text, its exit codes, and how it is connected: without a cluster."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from conch.cli import app
from conch.kube import resources
from conch.kube.errors import ApiError, ApiUnavailableError, KubeconfigError
from conch.kube.kubeconfig import connect_as_user
from conch.why import command
from conch.why.chain import explain
from conch.why.gather import CannotTellError, Seen
from conch.why.refusals import in_plain_words
from conch.why.render import render
from tests.unit.test_why_chain import DIGEST, a_live_pod, a_warning, body, condition, not_ready

NOW = datetime(2026, 1, 1, 0, 12, tzinfo=UTC)
CANDIDATE = {"revision": "r1", "version": 3, "workload": "w1"}
FETCH = {
    "percent": 62,
    "bytes": 3_100_000_000,
    "totalBytes": 5_000_000_000,
    "files": 12,
    "bytesPerSecond": 120_000_000,
    "observedAt": "2026-01-01T00:11:52Z",
}


def text(seen: Seen, **how: Any) -> str:
    return render(explain(seen), now=NOW, **how)


def crashing() -> Seen:
    ended = {"reason": "Error", "exitCode": 1, "finishedAt": "2026-01-01T00:07:00Z", "message": "no\nsuch file"}
    triton = {
        "name": "triton",
        "restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m"}},
        "lastState": {"terminated": ended},
    }
    through = {"name": "agent", "state": {"terminated": {"reason": "Completed", "exitCode": 0}}}
    return Seen(
        body=body(
            condition("Ready", "False", "CrashLooping", "Check runtime.image. Container triton keeps crashing."),
            condition("Stalled", "True", "CrashLooping"),
            check="containers_keep_running",
            candidate=CANDIDATE,
            source={"digest": DIGEST, "resolved": "main@abc"},
            fetch=FETCH,
        ),
        pods=(a_live_pod("sentiment-w1-abc-1", containerStatuses=[triton], initContainerStatuses=[through]),),
        deployments=(),
        warnings=(a_warning("Pod", "sentiment-w1-abc-1", "05", message="Back-off restarting", count=9),),
    )


def test_piped_text_has_one_fact_a_line_and_no_colours() -> None:
    lines = text(crashing()).splitlines()
    assert lines[0] == "ModelDeployment team-a/sentiment: not ready for 12m (CrashLooping)"
    assert "✓ No pod fails to get its images." in lines
    assert [line for line in lines if line.startswith("✗")] == [
        "✗ No container crashes again and again. -> CrashLooping: Check runtime.image. Container triton keeps crashing."
    ]
    assert "· The Service sends requests there." in lines
    assert "candidate: version 3, revision r1, Deployment sentiment-w1" in lines
    assert f"Pinned: {DIGEST}, which main@abc stood for" in lines
    assert "Fetching: ████████████░░░░░░░░ 62%, 3.1 GB of 5.0 GB, 12 files, 120.0 MB/s, 8s ago" in lines
    assert (
        "sentiment-w1-abc-1 (candidate): Pending, not ready, on node-1, 12m old, 4 restarts; "
        "triton waits, CrashLoopBackOff: back-off 5m, ended 5m ago, Error, exit code 1: no such file"
    ) in lines
    assert "7m ago, 9 times: Pod sentiment-w1-abc-1: BackOff: Back-off restarting" in lines
    assert lines[-1] == "Somebody has to act. Check runtime.image. Container triton keeps crashing."
    assert "\x1b" not in text(crashing())
    assert [line for line in lines if line != line.rstrip()] == []


def test_a_terminal_gets_colours_and_its_own_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = text(crashing(), terminal_width=60)
    assert "\x1b[" in shown
    monkeypatch.setenv("NO_COLOR", "1")
    plain = text(Seen(body=not_ready("names_are_free", message="many words " * 90)), terminal_width=60)
    assert "\x1b[3" not in plain
    assert max(len(re.sub("\x1b[^m]*m", "", line)) for line in plain.splitlines()) <= 60


def test_what_others_wrote_cannot_steer_the_terminal_or_forge_a_line() -> None:
    hostile = "a\x1b[2Jb\n✓ all is well [bold]c[/bold]\x07"
    shown = text(Seen(body=not_ready("names_are_free", message=hostile)))
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "a[2Jb ✓ all is well [bold]c[/bold]" in shown


def test_an_encoding_without_the_marks_gets_others() -> None:
    shown = text(Seen(body=not_ready("names_are_free", message="π", fetch=FETCH)), encoding="ascii")
    assert shown.isascii()
    assert "+ The operator has looked at the spec as it is now." in shown
    assert "############--------" in shown


def test_what_the_operator_has_not_looked_at_is_told_first_and_the_rest_as_old() -> None:
    old = not_ready("names_are_free", message="an old message", candidate=CANDIDATE)
    old["metadata"]["generation"] = 2
    shown = text(Seen(body=old))
    assert shown.startswith("ModelDeployment team-a/sentiment: the operator has not looked at it yet")
    assert "an old message" not in shown
    assert "Revisions, as the operator saw them last" in shown


def test_no_pods_and_more_pods_than_fit_are_said() -> None:
    assert "There are none." in text(Seen(body=not_ready("replicas_are_ready"), pods=()))
    pods = tuple(a_live_pod(f"p{number}") for number in range(23))
    assert "and 3 more" in text(Seen(body=not_ready("replicas_are_ready"), pods=pods))


def test_what_was_left_out_is_said() -> None:
    assert "Left out\nno pods" in text(Seen(body=not_ready("replicas_are_ready"), left_out=("no pods",)))


def test_a_fetch_of_unknown_size_has_no_bar() -> None:
    unknown = {key: value for key, value in FETCH.items() if key not in ("percent", "totalBytes")}
    shown = text(Seen(body=not_ready("replicas_are_ready", fetch=unknown)))
    assert "Fetching: 3.1 GB, 12 files, 120.0 MB/s, 8s ago" in shown


def test_what_the_model_cache_was_good_for_is_said_with_what_is_wrong_with_it() -> None:
    cache = {"hit": 2, "filled": 1, "bypassed": 0, "message": ""}
    shown = text(Seen(body=not_ready("replicas_are_ready", cache=cache)))
    assert "Model cache: 2 pods found the model there, 1 fetched it into it." in shown
    assert "did without" not in shown
    shown = text(Seen(body=not_ready("replicas_are_ready", cache=cache | {"bypassed": 3, "message": "It is full."})))
    assert "1 fetched it into it, 3 did without. It is full." in shown


def run(monkeypatch: pytest.MonkeyPatch, seen: Seen | Exception, *args: str) -> Result:
    class NoClient:
        async def close(self) -> None:
            """There is no connection."""

    async def connect(context: str | None) -> tuple[NoClient, str]:
        return NoClient(), f"namespace-of-{context}"

    async def gather(_: NoClient, namespace: str, name: str) -> Seen:
        if isinstance(seen, Exception):
            raise seen
        return Seen(body=seen.body, left_out=(f"asked for {name} in {namespace}",))

    monkeypatch.setattr(command, "connect_as_user", connect)
    monkeypatch.setattr(command, "gather", gather)
    return CliRunner().invoke(app, ["why", "sentiment", *args])


READY = Seen(body=body(condition("Ready", "True", "Serving")))
NOT_READY = Seen(body=not_ready("names_are_free"))


@pytest.mark.parametrize(("seen", "code"), [(READY, 0), (NOT_READY, 1), (Seen(body=body()), 1)])
def test_the_exit_code_says_whether_it_is_ready(monkeypatch: pytest.MonkeyPatch, seen: Seen, code: int) -> None:
    assert run(monkeypatch, seen).exit_code == code
    assert run(monkeypatch, seen, "--output", "json").exit_code == code


@pytest.mark.parametrize("error", [CannotTellError("there is none"), KubeconfigError("there is none")])
def test_what_cannot_be_told_is_said_on_stderr_alone(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    done = run(monkeypatch, error)
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", "there is none\n")


def test_the_namespace_is_the_contexts_unless_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "asked for sentiment in namespace-of-blue" in run(monkeypatch, READY, "--context", "blue").stdout
    assert "asked for sentiment in team-b" in run(monkeypatch, READY, "-n", "team-b").stdout


def test_json_is_the_report_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = json.loads(run(monkeypatch, NOT_READY, "-o", "json").stdout)
    assert (wire["name"], wire["ready"], wire["reason"]) == ("sentiment", False, "Starting")


def test_help_shows_the_plugin_and_the_exit_codes() -> None:
    shown = CliRunner().invoke(app, ["why", "--help"]).stdout
    assert "kubectl conch why sentiment -n team-a" in shown
    assert "Exits with 0" in shown


FORBIDDEN = 'pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "team-a"'


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ApiError(403, "Forbidden", FORBIDDEN, what=""), "You (jane) may not list pods in namespace team-a."),
        (ApiError(403, "Forbidden", "no", what=""), "You may not list pods in namespace team-a."),
        (ApiError(403, "Forbidden", 'User "system:anonymous" cannot', what=""), "log in again"),
        (ApiError(401, "Unauthorized", "Unauthorized", what=""), "log in again"),
        (ApiError(500, "InternalError", "etcd is away", what=""), "etcd is away"),
        (ApiUnavailableError("no route"), "cannot be reached (no route)"),
    ],
)
def test_a_refusal_is_told_in_plain_words(error: ApiError | ApiUnavailableError, words: str) -> None:
    assert words in in_plain_words(error, verb="list", resource=resources.PODS, namespace="team-a")


def kubeconfig(path: Path, *, current: str = "", **contexts: str) -> Path:
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": current,
                "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [
                    {"name": name, "context": {"cluster": "c", "user": "u", "namespace": namespace}}
                    for name, namespace in contexts.items()
                ],
            }
        )
    )
    return path


async def connected(context: str | None = None) -> str:
    client, namespace = await connect_as_user(context)
    await client.close()
    return namespace


async def test_the_first_kubeconfigs_current_context_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = kubeconfig(tmp_path / "first", current="blue", blue="team-blue", both="of-the-first")
    second = kubeconfig(tmp_path / "second", current="red", red="", both="of-the-second")
    monkeypatch.setenv("KUBECONFIG", f"{first}:{tmp_path / 'missing'}:{second}")
    assert await connected() == "team-blue"
    assert await connected("both") == "of-the-first"
    assert await connected("red") == "default"
    with pytest.raises(KubeconfigError, match=r"no context 'green'.*blue, both, red"):
        await connected("green")


async def test_an_exec_plugin_gives_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = kubeconfig(tmp_path / "config", current="blue", blue="x")
    config = yaml.safe_load(path.read_text())
    answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "ours"}}
    plugin = {"apiVersion": answer["apiVersion"], "command": "echo", "args": [json.dumps(answer)]}
    config["users"] = [{"name": "u", "user": {"exec": plugin}}]
    path.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(path))
    client, _ = await connect_as_user()
    assert await client.authorization() == "Bearer ours"
    await client.close()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "There is no kubeconfig at .*Set KUBECONFIG"),
        ("token: [secret", "is not YAML"),
        ("a text", "is no kubeconfig"),
        ("contexts: []", "has no current context"),
        ("{current-context: a, contexts: [{name: a, context: {cluster: b}}]}", "context a cannot be used"),
    ],
)
async def test_a_kubeconfig_that_does_not_do_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, words: str
) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(KubeconfigError, match=words) as raised:
        await connect_as_user()
    assert "secret" not in str(raised.value)


async def test_a_pod_without_a_service_account_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    with pytest.raises(KubeconfigError, match="neither a kubeconfig nor the pod's service account"):
        await connect_as_user()
