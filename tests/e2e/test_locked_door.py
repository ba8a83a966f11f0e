"""What a stranger's pod is told by Conch's, and can do to them: here it reaches all, for no policy is enforced."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from conch.api import gateway_pod
from conch.gateway.envoy.restricted_apis import RESTRICTED_METHODS
from tests.cluster.client import Cluster
from tests.e2e.conftest import Namespace
from tests.support import intruder
from tests.support.gateways import ready_gateways
from tests.support.installation import NAMESPACE as CONCH_NAMESPACE
from tests.support.model_store import ModelStore
from tests.support.waiting import until


@pytest.fixture
def elsewhere(namespace: Namespace) -> Iterator[Namespace]:
    """Another tenant's namespace."""
    other = Namespace(namespace.cluster, f"{namespace.name}-other")
    other.cluster.kubectl("create", "namespace", other.name)
    other.cluster.kubectl("label", "namespace", other.name, "pod-security.kubernetes.io/enforce=restricted")
    yield other
    other.cluster.kubectl("delete", "namespace", other.name, "--wait=false")


def test_who_has_no_key_learns_no_secret_and_changes_nothing(
    namespace: Namespace, elsewhere: Namespace, store: ModelStore
) -> None:
    cluster = namespace.cluster
    namespace.deploy("digits", store.uri("/digits.onnx"), gpu={"count": 0})
    namespace.wait_ready("digits")
    before = _state(namespace)
    (server,) = namespace.pods("digits")
    operators = [
        pod
        for pod in cluster.get("pods", "-n", CONCH_NAMESPACE, "-l", "app.kubernetes.io/component=operator")["items"]
        if "deletionTimestamp" not in pod["metadata"]
    ]
    text = _run(
        elsewhere,
        {
            "operator": operators[0]["status"]["podIP"],
            "gateway": min(ready_gateways(cluster)),
            "server": server["status"]["podIP"],
            "port": namespace.mdep("digits")["status"]["gateway"]["port"],
            "model": "digits",
            "methods": RESTRICTED_METHODS,
        },
    )
    told = json.loads(text)
    assert told["open"]["operator"] == [8080]
    assert told["open"]["server"] == [8000, 8001, 8002, 8080]
    models = range(gateway_pod.PORTS_FIRST, gateway_pod.PORTS_LAST + 1)
    assert [port for port in told["open"]["gateway"] if port not in models] == [gateway_pod.REPORT_PORT]

    answers: dict[str, list[dict[str, Any]]] = told["answers"]
    assert {host: _statuses(answers.pop(f"open at {host}")) for host in intruder.OPEN} == _OPEN
    let_in = [
        (where, each)
        for where, some in answers.items()
        for each in some
        if each["status"] != _REFUSALS[where.partition(",")[0]]
    ]
    assert let_in == []
    assert [secret[:6] for secret in _secrets(cluster, namespace) if secret in text] == []

    assert _state(namespace) == before
    namespace.wait_answers("digits")


_REFUSALS: Final[dict[str, int | str]] = {
    "agent": 401,
    "sidecar": 401,
    "HTTP of server": 403,
    "HTTP of gateway": 403,
    "gRPC of server": "UNAVAILABLE",
    "gRPC of gateway": "PERMISSION_DENIED",
}
_OPEN: Final = {
    "operator": {"GET /healthz": 200, "GET /readyz": 200, "GET /metrics": 200},
    # Only a pod that is being deleted leaves.
    "gateway": {"GET /healthz": 200, "GET /readyz": 200, "GET /metrics": 200, "GET /leave": 409},
    # The agent answers once nobody uses the pod.
    "server": {"GET /healthz": 200, "GET /leave": 0, "GET /metrics": 200},
}


def _statuses(some: list[dict[str, Any]]) -> dict[str, int]:
    return {each["call"]: each["status"] for each in some}


def _run(namespace: Namespace, plan: dict[str, Any]) -> str:
    """Let a pod of this namespace do its worst; returns what it printed."""
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    command = ["python3", "-c", Path(intruder.__file__).read_text(), json.dumps(plan)]
    container = {"name": "intruder", "image": "localhost/conch:dev", "command": command, "securityContext": restricted}
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    metadata = {"name": "intruder", "namespace": namespace.name}
    namespace.cluster.apply([{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}])

    def phase() -> str | None:
        status = namespace.cluster.get("pod", "intruder", "-n", namespace.name)["status"]
        return status["phase"] if status["phase"] in ("Succeeded", "Failed") else None

    ended = until(phase, "the intruder to be done", seconds=240)
    printed: str = namespace.cluster.kubectl("logs", "intruder", "-n", namespace.name).stdout
    assert ended == "Succeeded", printed
    return printed


def _state(namespace: Namespace) -> dict[str, Any]:
    """What an intruder might have changed: what is served from where, and whether anything had to begin anew."""
    status = namespace.mdep("digits")["status"]
    containers = [
        (pod["metadata"]["uid"], each["name"], each["containerID"], each["restartCount"])
        for pod in namespace.pods("digits")
        for each in (*pod["status"]["initContainerStatuses"], *pod["status"]["containerStatuses"])
    ]
    return {"containers": containers, **{key: status[key] for key in ("stable", "source", "traffic", "gateway")}}


def _secrets(cluster: Cluster, namespace: Namespace) -> set[str]:
    """Every key, as it lies in its Secret and as it is used."""
    found = set()
    for where, entries in ((CONCH_NAMESPACE, ("key", "token")), (namespace.name, ("admin-key",))):
        for secret in cluster.get("secrets", "-n", where)["items"]:
            for entry in entries:
                if encoded := secret.get("data", {}).get(entry):
                    found |= {encoded, base64.b64decode(encoded).decode("latin-1").strip()}
    assert len(found) >= 6, "a key was not found: the test would look for nothing"
    return found
