"""A control plane with fake nodes, and everything the phases do in it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from conch.api import names
from conch.kube.client import KubeClient
from conch.kube.reflector import ObjectKey, Reflector
from conch.kube.resources import DEPLOYMENTS, MODEL_DEPLOYMENTS, PODS, Resource
from tests import generate
from tests.cluster import binaries, waiting
from tests.cluster.apiserver import ApiServer
from tests.cluster.ports import free_port
from tests.cluster.processes import Processes
from tests.perf.scale import audit
from tests.perf.scale.bare_children import bare_children
from tests.perf.scale.loopback import POD_RANGE
from tests.support.installed_chart import OPERATOR
from tests.support.operator_process import OperatorProcess
from tests.support.waiting import until

MODELS: Final = "models"
FLOOR: Final = "floor"
_STAGES: Final = Path(__file__).with_name("stages.yaml")
_NODES: Final = 10
_POD_ROOM: Final = 2000
_IN_FLIGHT: Final = 16
_EDITOR: Final = "bench-editor"
_CLIENT_QPS: Final = 1000
_HERE: Final = {"PYTHONPATH": str(generate.ROOT)}
"""So that a daemon, which runs in `/`, finds these modules."""
_OPERATOR_GROUPS: Final = (
    "system:serviceaccounts",
    f"system:serviceaccounts:{generate.NAMESPACE}",
    "system:authenticated",
)


class Count:
    """How many objects of a resource fulfil a condition, kept up to date by a watch; `reached` waits for a number."""

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        holds: Callable[[Mapping[str, Any]], object],
        *,
        selector: str = "",
    ) -> None:
        self._values: dict[ObjectKey, object] = {}
        self._ever: set[ObjectKey] = set()
        self._changed = asyncio.Event()
        self._reflector: Reflector[object] = Reflector(
            client, resource, project=holds, on_change=self._take, label_selector=selector
        )
        self._task = asyncio.ensure_future(self._reflector.run())

    def _take(self, key: ObjectKey, before: object, after: object) -> None:
        del before
        self._values[key] = after
        if after:
            self._ever.add(key)
        self._changed.set()

    def value(self, key: ObjectKey) -> object:
        """What `holds` made of this object last."""
        return self._values.get(key)

    @property
    def number(self) -> int:
        """Objects for which `holds` is true."""
        return sum(1 for value in self._values.values() if value)

    async def until(self, condition: Callable[[], bool], what: str, *, seconds: float) -> None:
        """Wait until a change makes the condition true."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError as error:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}; {self.number} are so") from error

    async def reached(self, number: int, what: str, *, seconds: float) -> None:
        """Wait until exactly this many are so."""
        await self._reflector.synced.wait()
        await self.until(lambda: self.number == number, f"{number} {what}", seconds=seconds)

    async def were_once(self, number: int, what: str, *, seconds: float) -> None:
        """Wait until so many have been so, each for a moment at least: of what scales, never all are at once."""
        await self._reflector.synced.wait()
        await self.until(lambda: len(self._ever) >= number, f"{number} {what} once", seconds=seconds)

    async def stop(self) -> None:
        """End the watch."""
        self._task.cancel()
        await asyncio.wait([self._task])


class World:
    """The running parts. `editor` makes and edits the objects, and its requests are in the audit log as well."""

    def __init__(self, api: ApiServer, editor: KubeClient, extras: Processes) -> None:
        self.api = api
        self.editor = editor
        self.audit = audit.AuditLog(api.logs / "audit.log")
        self._extras = extras
        self._kubeconfig = api.kubeconfig_of(OPERATOR, groups=_OPERATOR_GROUPS)

    def operator(self, name: str = "operator", *, through: int | None = None, module: str = "") -> OperatorProcess:
        """An operator with the chart's rights; `through` is the port of a relay to the API server.

        `module` runs it in its own way.
        """
        kubeconfig = self._kubeconfig
        if through is not None:
            kubeconfig = self.api.state / f"through-{through}.kubeconfig"
            kubeconfig.write_text(self._kubeconfig.read_text().replace(self.api.server, f"https://127.0.0.1:{through}"))
        settings: dict[str, Any] = {"name": name, "logLevel": "info"}
        if module:
            settings["command"] = (sys.executable, "-m", module)
        return OperatorProcess(kubeconfig, self.api.state, **settings)

    def operator_requests(self, requests: Iterable[audit.Request]) -> list[audit.Request]:
        """Those of the operator."""
        return [request for request in requests if request.user == OPERATOR]

    async def create(self, resource: Resource, bodies: Iterable[Mapping[str, Any]]) -> None:
        """Create objects as quickly as the API server takes them."""
        waiting_bodies = iter(list(bodies))

        async def work() -> None:
            for body in waiting_bodies:
                await self.editor.create(resource, body, field_manager="bench")

        await asyncio.gather(*(work() for _ in range(_IN_FLIGHT)))

    async def create_bare(self, models: Iterable[Mapping[str, Any]]) -> None:
        """Create what Conch would create for these, in the floor's namespace and with its label."""
        waiting_models = iter(list(models))

        async def work() -> None:
            for wanted in waiting_models:
                for resource, body in bare_children(wanted, namespace=FLOOR, labels={"bench": FLOOR}):
                    await self.editor.create(resource, body, field_manager="bench")

        await asyncio.gather(*(work() for _ in range(_IN_FLIGHT)))

    async def edit(self, name: str, **spec: Any) -> None:
        """Change fields of one ModelDeployment's spec."""
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": name, "namespace": MODELS},
            "spec": spec,
        }
        await self.editor.apply(MODEL_DEPLOYMENTS, body, field_manager="bench-edit")

    def count_ready_models(self) -> Count:
        """ModelDeployments that are Ready."""
        return Count(self.editor, MODEL_DEPLOYMENTS, _is_ready)

    def count_floor(self) -> Count:
        """Plain Deployments that are available."""
        return Count(self.editor, DEPLOYMENTS, _is_available, selector="bench=floor")

    def count_replicas(self) -> Count:
        """How many replicas each of Conch's Deployments asks for, and how many are available."""
        return Count(
            self.editor, DEPLOYMENTS, _wanted_and_available, selector=f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"
        )

    def count_floor_pods(self) -> Count:
        """Pods in the floor's namespace."""
        return Count(self.editor, PODS, lambda live: live["metadata"]["namespace"] == FLOOR)

    def silence_agents(self, silent: bool) -> None:
        """Make every agent take connections and never answer, or let them speak again."""
        record = self._extras.get("pods")
        assert record is not None
        os.kill(record.pid, signal.SIGUSR1 if silent else signal.SIGUSR2)

    def delayed(self, seconds: float) -> int:
        """Start a relay that delays each call to the API server; returns its port."""
        port = free_port()
        target = self.api.server.rpartition(":")[2]
        self._extras.start(
            "relay",
            [sys.executable, "-m", "tests.perf.scale.delayed_proxy", str(port), target, str(seconds)],
            environment=_HERE,
        )
        waiting.until(lambda: _listens(port), what="The relay's start", timeout_seconds=20)
        return port


@asynccontextmanager
async def world(*, profiling: bool, pods: str = "tests.perf.scale.stub_pods") -> AsyncIterator[World]:
    """Everything started, the chart applied (but for the operator's own pods), fake nodes and gateways Ready.

    `pods` is the module that answers for the pods.
    """
    programs = binaries.ensure("kwok", "etcd", "kube-apiserver", "kubectl", "kube-controller-manager", "kube-scheduler")
    policy = audit.policy(OPERATOR, _EDITOR)
    with ApiServer(
        controllers=True,
        scheduler=True,
        client_qps=_CLIENT_QPS,
        audit_policy=policy,
        audit_megabytes=4000,
        profiling=profiling,
    ) as api:
        extras = Processes(records=api.state / "extras", logs=api.logs)
        try:
            _install_chart(api)
            start_nodes(api, extras, programs)
            token = api.state / "gateway-token"
            extras.start(
                "pods",
                [sys.executable, "-m", pods, str(api.kubeconfig), str(token)],
                environment=_HERE,
            )
            waiting.until(
                lambda: waiting.answers("http://127.0.0.1:8080/healthz"), what="The stubs' start", timeout_seconds=30
            )
            _await_gateways(api)
            editor = await KubeClient.connect(api.kubeconfig_of(_EDITOR, groups=["system:masters"]))
            try:
                yield World(api, editor, extras)
            finally:
                await editor.close()
        finally:
            extras.stop(grace_seconds=0)


def model(index: int, name: str = "") -> dict[str, Any]:
    """One of many ModelDeployments: what most users write."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name or f"model-{index}", "namespace": MODELS},
        "spec": {"model": {"version": 1, "source": {"uri": f"https://models.example.com/{index}/model.onnx"}}},
    }


def plain_deployment(index: int) -> dict[str, Any]:
    """The floor: what the cluster itself needs for one pod."""
    labels = {"bench": FLOOR, "app": f"plain-{index}"}
    containers = [{"name": "triton", "image": "localhost/triton:dev", "resources": {"limits": {"nvidia.com/gpu": 1}}}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"plain-{index}", "namespace": FLOOR, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
    }


def _install_chart(api: ApiServer) -> None:
    for namespace in (generate.NAMESPACE, MODELS, FLOOR):
        api.kubectl("create", "namespace", namespace)
    documents = [
        each for each in yaml.safe_load_all(generate.render()) if each["kind"] != "Deployment" or _is_gateway(each)
    ]
    # The CRD first: kubectl learns of its kind at the next call only.
    for first in (True, False):
        part = [each for each in documents if (each["kind"] == "CustomResourceDefinition") is first]
        api.kubectl(
            *("apply", "--server-side", "-f", "-"),
            input=json.dumps({"apiVersion": "v1", "kind": "List", "items": part}),
        )
    path = 'jsonpath={.status.conditions[?(@.type=="Established")].status}'
    command = ("get", "crd", "modeldeployments.conch.dev", "-o", path)
    until(lambda: api.kubectl(*command).stdout == "True", "the CRD to be established")


def _is_gateway(deployment: Mapping[str, Any]) -> bool:
    labels: Mapping[str, str] = deployment["spec"]["template"]["metadata"]["labels"]
    return names.GATEWAY_LABELS.items() <= labels.items()


def _await_gateways(api: ApiServer) -> None:
    """The chart's gateways become Ready as every pod does here; what they answer is the stub's."""
    selector = ",".join(f"{key}={value}" for key, value in names.GATEWAY_LABELS.items())
    wait = ("wait", "--for=condition=Available", "deployments", "--timeout=60s")
    api.kubectl(*wait, f"--selector={selector}", f"--namespace={generate.NAMESPACE}")


def start_nodes(api: ApiServer, extras: Processes, programs: Path, stages: Path = _STAGES) -> None:
    """Fake nodes that are Ready, kept by kwok, which does with pods what `stages` says."""
    room = {"cpu": "8000", "memory": "64Ti", "pods": str(_POD_ROOM), "nvidia.com/gpu": str(_POD_ROOM)}
    room["ephemeral-storage"] = "1Pi"
    nodes = [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": f"fake-{number}", "labels": {"kubernetes.io/hostname": f"fake-{number}"}},
            "status": {"capacity": room, "allocatable": room},
        }
        for number in range(_NODES)
    ]
    api.kubectl("create", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": nodes}))
    extras.start(
        "kwok",
        [
            str(programs / "kwok"),
            f"--kubeconfig={api.kubeconfig}",
            f"--config={stages}",
            "--manage-all-nodes=true",
            f"--cidr={POD_RANGE}",
            "--node-ip=10.64.0.1",
            "--node-lease-duration-seconds=40",
        ],
        environment={"HOME": str(api.state)},
    )

    def ready() -> bool:
        conditions = [item["status"].get("conditions", []) for item in api.get("nodes")["items"]]
        return all(any(c["type"] == "Ready" and c["status"] == "True" for c in each) for each in conditions)

    waiting.until(
        ready, what="The fake nodes being Ready", timeout_seconds=60, alive=lambda: extras.require_alive("kwok")
    )


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _is_ready(live: Mapping[str, Any]) -> bool:
    conditions = live.get("status", {}).get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _is_available(live: Mapping[str, Any]) -> bool:
    return bool(live.get("status", {}).get("availableReplicas", 0) >= 1)


def _wanted_and_available(live: Mapping[str, Any]) -> tuple[int, int]:
    return live["spec"]["replicas"], live.get("status", {}).get("availableReplicas", 0)
