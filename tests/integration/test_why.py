"""`conch why` against a real API server: with the rights of several people, and by kubectl's plugin."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.apiserver import ApiServer
from tests.integration.conftest import install_crd, model_deployment
from tests.support.waiting import until

BIN = Path(sys.executable).parent
DIGEST = f"sha256:{'ab' * 32}"
LABELS = {"app.kubernetes.io/managed-by": "conch", "conch.dev/model-deployment": "digits", "conch.dev/workload": "w1"}


@pytest.fixture(scope="module")
def api() -> Iterator[ApiServer]:
    """An API server beside which no operator runs: these tests say what it would have said."""
    with ApiServer(controllers=True) as server:
        install_crd(server)
        yield server


@pytest.fixture(scope="module")
def bare() -> Iterator[ApiServer]:
    """An API server that Conch was never installed in."""
    with ApiServer() as server:
        yield server


def run(*argv: str | Path, kubeconfig: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A command of a person whose kubeconfig this is."""
    found = os.pathsep.join(str(part) for part in (BIN, path, os.environ["PATH"]) if part)
    environment = {"PATH": found, "KUBECONFIG": str(kubeconfig), "HOME": "/nonexistent"}
    return subprocess.run(argv, capture_output=True, text=True, env=environment, check=False, timeout=60)


def why(kubeconfig: Path, namespace: str, *args: str, name: str = "digits") -> subprocess.CompletedProcess[str]:
    return run("conch", "why", name, "-n", namespace, *args, kubeconfig=kubeconfig)


def create(api: ApiServer, body: dict[str, Any]) -> None:
    api.kubectl("create", "-f", "-", input=json.dumps(body))


def tell(api: ApiServer, namespace: str, kind: str, name: str, status: dict[str, Any]) -> None:
    """Write a status, in the place of the operator or of a kubelet."""
    patch = json.dumps({"status": status})
    api.kubectl("patch", kind, name, "-n", namespace, "--subresource=status", "--type=merge", "-p", patch)


def condition(type_: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    told = {"type": type_, "status": status, "reason": reason, "message": message, "observedGeneration": 1}
    return {**told, "lastTransitionTime": "2026-01-01T00:00:00Z"}


def served(version: int, workload: str) -> dict[str, Any]:
    return {"revision": f"r{version}", "version": version, "workload": workload}


def crash(api: ApiServer, namespace: str) -> None:
    """A ModelDeployment whose pod crashes, with all that the cluster would tell of it."""
    create(api, model_deployment("digits", namespace))
    message = "Check runtime.image and runtime.env. Container triton of pod digits-w1-a keeps crashing (4 restarts)."
    status = {
        "observedGeneration": 1,
        "conditions": [
            condition("Ready", "False", "CrashLooping", message),
            condition("Stalled", "True", "CrashLooping", message),
        ],
        "candidate": served(3, "w1"),
        "source": {"digest": DIGEST, "resolved": "main@abc"},
        "display": {"check": "containers_keep_running"},
    }
    tell(api, namespace, "mdep", "digits", status)
    triton = {"name": "triton", "image": "triton"}
    pod = {
        "metadata": {"name": "digits-w1-a", "namespace": namespace, "labels": LABELS},
        "spec": {"containers": [triton]},
    }
    account = ("get", "serviceaccount", "default", "-n", namespace)
    until(lambda: api.kubectl(*account, check=False).returncode == 0, "what every pod needs")
    create(api, {"apiVersion": "v1", "kind": "Pod", **pod})
    ended = {"reason": "Error", "exitCode": 1, "message": "no such option"}
    container = {
        **triton,
        "imageID": "",
        "ready": False,
        "restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}},
        "lastState": {"terminated": ended},
    }
    tell(api, namespace, "pod", "digits-w1-a", {"phase": "Running", "containerStatuses": [container]})
    uid = api.get("mdep", "digits", "-n", namespace)["metadata"]["uid"]
    event: dict[str, Any] = {"apiVersion": "v1", "kind": "Event", "type": "Warning", "source": {"component": "kubelet"}}
    for number, (kind, name) in enumerate((("Pod", "digits-w1-a"), ("Pod", "another"))):
        create(
            api,
            {
                **event,
                "metadata": {"name": f"{name}.{number}", "namespace": namespace},
                "involvedObject": {"kind": kind, "name": name, "namespace": namespace},
                "reason": "BackOff",
                "message": f"Back-off restarting {name}",
                "lastTimestamp": f"2026-01-01T00:0{number}:00Z",
            },
        )
    # As the operator writes it: of the newer API, without a last timestamp.
    create(
        api,
        {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": "digits.2", "namespace": namespace},
            "eventTime": "2026-01-01T00:02:00.000000Z",
            "reportingController": "conch.dev/operator",
            "reportingInstance": "one",
            "action": "Reconcile",
            "type": "Warning",
            "reason": "CrashLooping",
            "note": "told by the operator",
            "regarding": {"kind": "ModelDeployment", "namespace": namespace, "name": "digits", "uid": uid},
        },
    )


def let(api: ApiServer, namespace: str, user: str, *grant: str) -> Path:
    """A person with these rights in the namespace."""
    api.kubectl("create", "rolebinding", f"{user}-{grant[0].split('=')[-1]}", "-n", namespace, f"--user={user}", *grant)
    return api.kubeconfig_of(user)


def one_may(api: ApiServer, namespace: str, user: str, verbs: str) -> Path:
    """A person who has these verbs on ModelDeployments and no other right."""
    resource = "--resource=modeldeployments.conch.dev"
    api.kubectl("create", "role", f"{user}-role", "-n", namespace, f"--verb={verbs}", resource)
    return let(api, namespace, user, f"--role={user}-role")


def test_what_crashes_is_explained_with_its_pod_and_its_events(api: ApiServer, namespace: str) -> None:
    crash(api, namespace)
    done = why(api.kubeconfig, namespace)
    lines = done.stdout.splitlines()
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    (failed,) = (line for line in lines if line.startswith("✗"))
    assert failed.startswith("✗ No container crashes again and again. -> CrashLooping: Check runtime.image")
    assert f"Pinned: {DIGEST}, which main@abc stood for" in lines
    (pod,) = (line for line in lines if line.startswith("digits-w1-a"))
    assert "triton waits, CrashLoopBackOff: back-off 5m0s, ended" in pod
    assert "exit code 1: no such option" in pod
    warnings = [line for line in lines if "Back-off restarting" in line or "told by the operator" in line]
    assert [line.split(": ")[-1] for line in warnings] == ["Back-off restarting digits-w1-a", "told by the operator"]
    assert lines[-1].startswith("Somebody has to act. Check runtime.image")


def test_json_is_the_same_for_machines(api: ApiServer, namespace: str) -> None:
    crash(api, namespace)
    done = why(api.kubeconfig, namespace, "-o", "json")
    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert [check["name"] for check in report["checks"] if check["outcome"] == "Failed"] == ["containers_keep_running"]
    assert (report["pin"]["digest"], len(report["pods"]), len(report["warnings"])) == (DIGEST, 1, 2)
    assert report["leftOut"] == []


def test_kubectl_has_the_command_too(api: ApiServer, namespace: str) -> None:
    crash(api, namespace)
    plugin = run("kubectl", "conch", "why", "digits", "-n", namespace, kubeconfig=api.kubeconfig, path=api.bin)
    assert plugin.returncode == 1, plugin.stderr
    assert "✗ No container crashes again and again." in plugin.stdout


def test_a_ready_object_ends_with_zero_also_in_the_contexts_own_namespace(
    api: ApiServer, namespace: str, tmp_path: Path
) -> None:
    create(api, model_deployment("digits", namespace))
    message = "1 of 1 replicas serve version 3."
    ready = {"observedGeneration": 1, "conditions": [condition("Ready", "True", "Serving", message)]}
    tell(api, namespace, "mdep", "digits", {**ready, "stable": served(3, "w1")})
    own = tmp_path / "kubeconfig"
    own.write_text(api.kubeconfig.read_text())
    config: list[str | Path] = [api.bin / "kubectl", f"--kubeconfig={own}", "config"]
    current = subprocess.run([*config, "current-context"], capture_output=True, text=True, check=True)
    subprocess.run([*config, "set-context", "--current", f"--namespace={namespace}"], check=True)
    for args in ((), ("--context", current.stdout.strip())):
        done = run("conch", "why", "digits", *args, kubeconfig=own)
        assert done.returncode == 0, done.stderr
        assert f"{namespace}/digits: ready" in done.stdout
        assert "✗" not in done.stdout.split("Revisions")[0].split("Checks")[1].split("\n", 1)[1]


def test_an_object_that_no_operator_has_seen_says_so(api: ApiServer, namespace: str) -> None:
    create(api, model_deployment("digits", namespace))
    done = why(api.kubeconfig, namespace)
    assert done.returncode == 1
    assert "the operator has not looked at it yet" in done.stdout
    assert "kubectl get pods -A" in done.stdout


def test_the_role_view_is_enough_for_everything(api: ApiServer, namespace: str) -> None:
    crash(api, namespace)
    one_may(api, namespace, "reader", "get,list")
    kubeconfig = let(api, namespace, "reader", "--clusterrole=view")
    done = why(kubeconfig, namespace)
    assert done.returncode == 1, done.stderr
    assert "Left out" not in done.stdout
    assert "Back-off restarting digits-w1-a" in done.stdout


def test_who_may_read_only_the_object_gets_the_chain_and_hears_what_is_left_out(api: ApiServer, namespace: str) -> None:
    crash(api, namespace)
    done = why(one_may(api, namespace, "jane", "get"), namespace)
    assert (done.returncode, done.stderr) == (1, "")
    assert "✗ No container crashes again and again." in done.stdout
    left_out = done.stdout.split("Left out\n")[1]
    for kind in ("pods", "deployments.apps", "events"):
        assert f"You (jane) may not list {kind} in namespace {namespace}." in left_out


def test_who_may_read_nothing_hears_which_right_is_missing(api: ApiServer, namespace: str) -> None:
    done = why(api.kubeconfig_of("nobody"), namespace)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"You (nobody) may not get modeldeployments.conch.dev in namespace {namespace}. "
        "Who runs that namespace can let you, with the ClusterRole view.\n"
    )


def test_a_wrong_name_is_answered_with_the_names_that_are_there(api: ApiServer, namespace: str) -> None:
    assert "there is none at all" in why(api.kubeconfig, namespace).stderr
    for name in ("digits", "sentiment"):
        create(api, model_deployment(name, namespace))
    done = why(api.kubeconfig, namespace, name="digit")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"no ModelDeployment digit in namespace {namespace}; there are: digits, sentiment." in done.stderr
    only_get = why(one_may(api, namespace, "getter", "get"), namespace, name="digit")
    assert only_get.stderr == f"There is no ModelDeployment digit in namespace {namespace}.\n"


@pytest.mark.parametrize("name", ["../secrets/x", "Digits", ""])
def test_what_is_no_name_is_not_asked_for(api: ApiServer, namespace: str, name: str) -> None:
    done = why(api.kubeconfig, namespace, name=name)
    assert done.returncode == 2
    assert "is no name of a ModelDeployment" in done.stderr


def test_a_cluster_without_conch_says_so(bare: ApiServer) -> None:
    done = why(bare.kubeconfig, "default")
    assert done.returncode == 2
    assert "Conch is not installed" in done.stderr
    bare.stop_server()
    try:
        assert "The API server cannot be reached" in why(bare.kubeconfig, "default").stderr
    finally:
        bare.start_server()
