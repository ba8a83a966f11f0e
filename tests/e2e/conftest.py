"""Conch, installed with Helm on the local cluster; each test has a namespace of its own that enforces `restricted`."""

import json
import os
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from tests.cluster import cache
from tests.cluster.client import Cluster
from tests.cluster.errors import ClusterError
from tests.e2e.failure_report import describe
from tests.support.cluster_stores import ClusterStores
from tests.support.groups import Groups
from tests.support.inference import digits, infer
from tests.support.installation import install
from tests.support.model_store import ModelStore
from tests.support.once import folder_of_run, once
from tests.support.waiting import until

SAMPLE = Path(__file__).parents[2] / "manifests" / "samples" / "digits" / "digits.onnx"
_LOCK = pytest.StashKey[ExitStack]()
SMALL = {"resources": {"cpu": "50m", "memory": "768Mi"}, "sharedMemory": "64Mi"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs the whole cluster, and time for its waits to tell what did not come."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("e2e")
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(600))


def pytest_sessionstart(session: pytest.Session) -> None:
    """One run at a time: it installs Conch anew, and takes the operator from under another's tests."""
    if "PYTEST_XDIST_WORKER" not in os.environ and not session.config.option.collectonly:
        try:
            lock = cache.locked(Cluster.current().kubeconfig.with_name("tests.lock"), what="runs tests on this cluster")
        except ClusterError as error:
            pytest.exit(str(error), 1)
        session.config.stash[_LOCK] = ExitStack()
        session.config.stash[_LOCK].enter_context(lock)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The next one may begin."""
    if (lock := session.config.stash.get(_LOCK, None)) is not None:
        lock.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failure what its namespace looked like: it is gone before anybody can look."""
    report = yield
    namespace = getattr(item, "funcargs", {}).get("namespace")
    if report.failed and report.when != "teardown" and isinstance(namespace, Namespace):
        if hasattr(item.config.hook, "pytest_timeout_cancel_timer"):
            # As pytest-timeout does itself in a moment; it must not strike in here.
            item.config.hook.pytest_timeout_cancel_timer(item=item)
        section = (f"namespace {namespace.name}", describe(namespace.cluster, namespace.name))
        # Behind the traceback, and with it: that is all that is shown of a test that was run once more.
        add = getattr(report.longrepr, "addsection", None)
        if add is not None:
            add(*section)
        else:
            report.sections.append(section)
    return report


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The running cluster, with Conch installed from this checkout."""
    current = Cluster.current()
    once(folder_of_run(tmp_path_factory), "conch", lambda: install(current))
    return current


@pytest.fixture(scope="session")
def store(cluster: Cluster) -> Iterator[ModelStore]:
    """A model server with the sample model at /digits.onnx."""
    models = ModelStore(cluster)
    models.put("/digits.onnx", SAMPLE.read_bytes())
    yield models
    models.close()


@pytest.fixture(scope="session")
def stores(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterStores]:
    """Real model stores that pods reach by name."""
    running = ClusterStores(cluster, tmp_path_factory.mktemp("stores"))
    yield running
    running.close()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    """Tests of one group one after the other, all others as there is room."""
    return Groups(config, log)


class Namespace:
    """A namespace, and shorthands for what the tests do in it."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name

    def deploy(self, name: str, uri: str, **spec: Any) -> None:
        """Apply a ModelDeployment; `model` in `spec` adds to the model."""
        model = {"version": 1, **spec.pop("model", {})}
        model["source"] = {"uri": uri, **model.get("source", {})}
        body = {
            "apiVersion": "conch.dev/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": name, "namespace": self.name},
            # Nothing is kept warm: only tests of that wait for it.
            "spec": {"model": model, "runtime": SMALL, "rollout": {"keepWarmSeconds": 0}, **spec},
        }
        self.cluster.kubectl("apply", "-f", "-", input=json.dumps(body))

    def secret(self, name: str, entries: Mapping[str, str]) -> dict[str, Any]:
        """Make a Secret; returns the part of `model.source` that names it."""
        metadata = {"name": name, "namespace": self.name}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": dict(entries)}
        self.cluster.kubectl("apply", "-f", "-", input=json.dumps(body))
        return {"credentialsSecretRef": {"name": name}}

    def wait_answers(self, name: str) -> None:
        """Wait until the sample model answers as it should, through the Service."""
        drawn = digits()
        pixels, wanted = np.stack([digit.pixels for digit in drawn]), [digit.digit for digit in drawn]

        def right() -> bool:
            answer = infer(f"{self.address(name)}:8000", name, pixels, protocol="http")
            return bool((answer.argmax(axis=1) == wanted).mean() > 0.8)

        until(right, f"{name} to answer")

    def mdep(self, name: str) -> dict[str, Any]:
        """The ModelDeployment."""
        live: dict[str, Any] = self.cluster.get("mdep", name, "-n", self.name)
        return live

    def pods(self, name: str) -> list[dict[str, Any]]:
        """The pods of a ModelDeployment that are not on their way out."""
        selector = f"conch.dev/model-deployment={name}"
        items = self.cluster.get("pods", "-n", self.name, "-l", selector)["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def condition(self, name: str, type_: str) -> dict[str, Any]:
        """A condition that is about the object's present generation, else {}."""
        live = self.mdep(name)
        status = live.get("status", {})
        if status.get("observedGeneration") != live["metadata"]["generation"]:
            return {}
        return next((condition for condition in status.get("conditions", ()) if condition["type"] == type_), {})

    def wait_ready(self, name: str, *, replicas: int = 1, seconds: float = 240) -> None:
        """Wait until it is Ready with this many pods."""

        def ready() -> bool:
            return (
                self.condition(name, "Ready").get("status") == "True"
                and self.mdep(name)["status"]["readyReplicas"] == replicas
            )

        until(ready, f"{name} to be ready", seconds=seconds)

    def wait_reason(
        self, name: str, reason: str, *, seconds: float = 180, unless: Callable[[], str] = lambda: ""
    ) -> str:
        """Wait until it is not ready for this reason, and column and Event say so too; returns the message."""

        def told() -> str | None:
            ready = self.condition(name, "Ready")
            if (ready.get("status"), ready.get("reason")) != ("False", reason):
                return None
            # By the same look: some reasons pass within seconds.
            columns = self.cluster.kubectl("get", "mdep", name, "-n", self.name).stdout
            return ready["message"] if reason in columns else None

        message = until(told, f"{name} to say {reason}, also in its columns", seconds=seconds, unless=unless)
        self._wait_event(name, reason)
        return message

    def _wait_event(self, name: str, reason: str) -> None:
        """Wait until an Event of the object says why."""
        uid = self.mdep(name)["metadata"]["uid"]

        def told() -> bool:
            events = self.cluster.get("events.v1.events.k8s.io", "-n", self.name)["items"]
            return any(each["regarding"].get("uid") == uid and each["reason"] == reason for each in events)

        until(told, f"an Event {reason}")

    def wait_no_pods(self, name: str) -> None:
        """Wait until its pods are gone, those on their way out too."""
        selector = f"conch.dev/model-deployment={name}"
        until(lambda: not self.cluster.get("pods", "-n", self.name, "-l", selector)["items"], "no pod of it")

    def address(self, name: str) -> str:
        """The address of its Service, which this machine reaches as pods do."""
        address: str = self.cluster.get("service", name, "-n", self.name)["spec"]["clusterIP"]
        return address

    @contextmanager
    def claim(self, name: str, files: dict[str, bytes]) -> Iterator[Path]:
        """A bound PersistentVolumeClaim with these files; every node of the local cluster sees the same folder."""
        with tempfile.TemporaryDirectory(prefix="conch-claim-") as temporary:
            folder = Path(temporary)
            for path, content in files.items():
                file = folder / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            # TemporaryDirectory is for its owner alone, the pods run as another user.
            folder.chmod(0o755)
            size, modes = {"storage": "1Gi"}, ["ReadOnlyMany"]
            volume = f"{name}-{self.name}"
            persistent = {"capacity": size, "accessModes": modes, "hostPath": {"path": str(folder)}}
            wanted = {"accessModes": modes, "resources": {"requests": size}, "volumeName": volume}
            metadata = {"name": name, "namespace": self.name}
            self.cluster.apply(
                [
                    {
                        "apiVersion": "v1",
                        "kind": "PersistentVolume",
                        "metadata": {"name": volume},
                        "spec": {**persistent, "storageClassName": "", "persistentVolumeReclaimPolicy": "Retain"},
                    },
                    {
                        "apiVersion": "v1",
                        "kind": "PersistentVolumeClaim",
                        "metadata": metadata,
                        "spec": {**wanted, "storageClassName": ""},
                    },
                ]
            )
            yield folder
            self.cluster.kubectl("delete", "pv", volume, "--wait=false")

    @contextmanager
    def volume(self, name: str, folder: Path) -> Iterator[None]:
        """A StorageClass `NAME-NAMESPACE` with one volume of 1 Gi: this folder."""
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
        for parent in folder.parents[:-1]:
            parent.chmod(parent.stat().st_mode | 0o005)
        unique = f"{name}-{self.name}"
        self.cluster.apply(
            [
                {
                    "apiVersion": "storage.k8s.io/v1",
                    "kind": "StorageClass",
                    "metadata": {"name": unique},
                    "provisioner": "kubernetes.io/no-provisioner",
                    "volumeBindingMode": "WaitForFirstConsumer",
                },
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolume",
                    "metadata": {"name": unique},
                    "spec": {
                        "capacity": {"storage": "1Gi"},
                        "accessModes": ["ReadWriteOnce"],
                        "hostPath": {"path": str(folder)},
                        "storageClassName": unique,
                        "persistentVolumeReclaimPolicy": "Retain",
                    },
                },
            ]
        )
        yield
        self.cluster.kubectl("delete", "pv,storageclass", unique, "--wait=false")

    def ready_endpoints(self, name: str) -> set[str]:
        """Names of the pods that requests are sent to, by what the gateways are told.

        Status and EndpointSlices of one moment: a pod that came between two reads would be in neither.
        """
        traffic: list[dict[str, Any]] | None = None
        found: set[str] = set()
        while traffic != (traffic := self.mdep(name).get("status", {}).get("traffic", [])):
            found = {
                endpoint["targetRef"]["name"]
                for share in traffic
                if share["weight"]
                for item in self.slices(f"{name}-{share['workload']}")
                for endpoint in item.get("endpoints") or ()
                if endpoint["conditions"].get("ready")
                and endpoint["targetRef"]["name"] not in share.get("draining", ())
            }
        return found

    def slices(self, service: str) -> list[dict[str, Any]]:
        """The EndpointSlices of a Service."""
        selector = f"kubernetes.io/service-name={service}"
        items: list[dict[str, Any]] = self.cluster.get("endpointslice", "-n", self.name, "-l", selector)["items"]
        return items


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[Namespace]:
    """A namespace that admits only restricted pods."""
    name = f"e2e-{uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield Namespace(cluster, name)
    cluster.kubectl("delete", "mdep", "--all", "-n", name, "--wait=false")
    # From now on no controller makes pods anew, which would take their time to drain.
    cluster.kubectl("delete", "namespace", name, "--wait=false")
    # The GPUs are needed by the next test, which waits for them while it starts.
    cluster.kubectl("delete", "pods", "--all", "-n", name, "--grace-period=1", "--wait=false", check=False)
