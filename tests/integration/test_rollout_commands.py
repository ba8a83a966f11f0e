"""`conch promote` and its like, and `conch rollout`, against a real API server: by several people, and by kubectl."""

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from conch.api import names
from conch.api.model_deployment import parse, parse_spec
from conch.api.spec import ModelDeploymentSpec
from conch.core.desired.workload_record import new_record, workload_record
from conch.core.observed_child import WorkloadRecord
from conch.core.policy import InstallationPolicy
from conch.core.revision import revision_of
from tests.cluster.apiserver import ApiServer
from tests.integration.conftest import install_crd, model_deployment
from tests.integration.test_why import create, let, one_may, run, served, tell
from tests.support.waiting import until

ROLLOUT = {
    "id": "w2",
    "revision": "r4",
    "fromRevision": "r3",
    "strategy": "Surge",
    "steps": [{"weight": 10, "pause": "UntilPromoted"}],
    "phase": "Shifting",
    "weight": 10,
    "observedSince": "2026-01-01T00:00:00Z",
    "startedAt": "2026-01-01T00:00:00Z",
}


@pytest.fixture(scope="module")
def api() -> Iterator[ApiServer]:
    """An API server beside which no operator runs: these tests say what it would have said."""
    with ApiServer(controllers=True) as server:
        install_crd(server)
        yield server


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """For commands that wait while the test answers them."""
    with ThreadPoolExecutor() as made:
        yield made


def rolling(api: ApiServer, namespace: str, **changes: Any) -> None:
    """A ModelDeployment whose new revision waits to be promoted."""
    create(api, model_deployment("digits", namespace))
    status = {"observedGeneration": 1, "stable": served(3, "w1"), "candidate": served(4, "w2")}
    tell(api, namespace, "mdep", "digits", {**status, "rollout": ROLLOUT | changes})


def conch(kubeconfig: Path, namespace: str, *args: str) -> subprocess.CompletedProcess[str]:
    return run("conch", *args, "-n", namespace, kubeconfig=kubeconfig)


def asked(api: ApiServer, namespace: str) -> dict[str, Any]:
    """The command that is on the object, if there is one."""
    annotations = api.get("mdep", "digits", "-n", namespace)["metadata"].get("annotations", {})
    command: dict[str, Any] = json.loads(annotations.get(names.ANNOTATION_COMMAND, "{}"))
    return command


def answer(api: ApiServer, namespace: str, *, accepted: bool, message: str) -> dict[str, Any]:
    """Answer the command as the operator would, once it is there; returns it."""
    until(lambda: bool(asked(api, namespace)), "the command to be on the object")
    command = asked(api, namespace)
    told = {"nonce": command["nonce"], "command": command["command"], "accepted": accepted, "message": message}
    tell(api, namespace, "mdep", "digits", {"command": told})
    return command


@pytest.mark.parametrize("accepted", [True, False])
def test_a_command_reaches_the_operator_and_its_answer_the_person(
    api: ApiServer, namespace: str, pool: ThreadPoolExecutor, accepted: bool
) -> None:
    rolling(api, namespace)
    mine = one_may(api, namespace, "jane", "get,patch")
    waiting: Future[subprocess.CompletedProcess[str]] = pool.submit(conch, mine, namespace, "promote", "digits")
    command = answer(api, namespace, accepted=accepted, message="As you say.")
    done = waiting.result()
    assert (command["command"], command["rollout"], command["full"]) == ("promote", "w2", False)
    if accepted:
        assert (done.returncode, done.stdout, done.stderr) == (0, "promote digits: As you say.\n", "")
    else:
        assert (done.returncode, done.stdout, done.stderr) == (1, "", "promote digits: not done. As you say.\n")


def test_nothing_but_the_annotation_is_changed(api: ApiServer, namespace: str) -> None:
    rolling(api, namespace)
    before = api.get("mdep", "digits", "-n", namespace)
    done = conch(api.kubeconfig, namespace, "pause", "digits", "--timeout", "0.5")
    assert done.returncode == 1
    assert "The operator has not answered within 0.5 s. Is it running?" in done.stderr
    after = api.get("mdep", "digits", "-n", namespace)
    assert after["metadata"].pop("annotations").keys() - before["metadata"].get("annotations", {}).keys() == {
        names.ANNOTATION_COMMAND
    }
    assert (after["spec"], after["status"]) == (before["spec"], before["status"])
    assert after["metadata"]["generation"] == before["metadata"]["generation"]


def test_a_second_command_waits_its_turn_and_an_abort_does_not(api: ApiServer, namespace: str) -> None:
    rolling(api, namespace)
    assert conch(api.kubeconfig, namespace, "pause", "digits", "--timeout", "0.5").returncode == 1
    second = conch(api.kubeconfig, namespace, "promote", "digits", "--timeout", "0.5")
    assert "Another command (pause) was given before" in second.stderr
    assert asked(api, namespace)["command"] == "pause"
    conch(api.kubeconfig, namespace, "abort", "digits", "--timeout", "0.5")
    assert asked(api, namespace)["command"] == "abort"


def test_who_may_only_read_hears_which_right_is_missing(api: ApiServer, namespace: str) -> None:
    rolling(api, namespace)
    done = conch(one_may(api, namespace, "reader", "get,list"), namespace, "abort", "digits")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"You (reader) may not patch modeldeployments.conch.dev in namespace {namespace}. "
        "Who runs that namespace can let you, with the ClusterRole edit.\n"
    )


def test_kubectl_has_the_commands_too(api: ApiServer, namespace: str) -> None:
    rolling(api, namespace)

    def plugin(*args: str) -> subprocess.CompletedProcess[str]:
        return run("kubectl", "conch", *args, "-n", namespace, kubeconfig=api.kubeconfig, path=api.bin)

    told = plugin("rollout", "status", "digits")
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith(f"ModelDeployment {namespace}/digits: Shifting, 10 % of the requests")
    assert "somebody promotes it: conch promote digits" in told.stdout
    assert plugin("retry", "digits").returncode == 1
    assert json.loads(plugin("rollout", "status", "digits", "-o", "json").stdout) == ROLLOUT


def test_a_watch_follows_until_it_is_over(api: ApiServer, namespace: str, pool: ThreadPoolExecutor) -> None:
    rolling(api, namespace)
    watch = pool.submit(
        conch, one_may(api, namespace, "watcher", "get"), namespace, "rollout", "status", "digits", "-w"
    )
    tell(api, namespace, "mdep", "digits", {"rollout": {"phase": "RollingBack", "cause": "Aborted", "weight": 0}})
    tell(api, namespace, "mdep", "digits", {"candidate": None, "rollout": {"phase": "Halted"}})
    done = watch.result()
    assert (done.returncode, done.stderr) == (1, "")
    assert " Halted, " in done.stdout.splitlines()[-1]


def record_of(api: ApiServer, namespace: str, number: int) -> WorkloadRecord:
    """The operator's record of a workload; created as it creates it."""
    owner = parse(api.get("mdep", "digits", "-n", namespace))
    model = {"version": number, "source": {"uri": f"https://models.example.com/{number}.onnx"}}
    spec = parse_spec({"model": model})
    assert isinstance(spec, ModelDeploymentSpec)
    policy = InstallationPolicy(triton_image="triton", agent_image="agent")
    record = new_record(owner, spec, revision_of(spec), workload=f"w{number}", number=number, policy=policy)
    create(api, dict(workload_record(owner, record).body))
    return record


def test_history_is_read_from_the_records_with_the_role_view(api: ApiServer, namespace: str) -> None:
    rolling(api, namespace)
    first, second = record_of(api, namespace, 1), record_of(api, namespace, 2)
    one_may(api, namespace, "viewer", "get")
    viewer = let(api, namespace, "viewer", "--clusterrole=view")
    done = conch(viewer, namespace, "rollout", "history", "digits", "-o", "json")
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(done.stdout)
    assert [(row["revision"], row["version"], row["workload"], row["standing"]) for row in rows] == [
        (second.revision, 2, "w2", "candidate"),
        (first.revision, 1, "w1", "stable"),
    ]
    assert second.revision in conch(viewer, namespace, "rollout", "history", "digits").stdout
