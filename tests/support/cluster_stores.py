"""The tests' model stores, on this machine, as pods of the local cluster reach them: by a name of the cluster's DNS."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, TypeVar

from tests.cluster.client import Cluster
from tests.cluster.constants import BRIDGE_ADDRESS
from tests.stores import tls
from tests.stores.azure import Azure
from tests.stores.gcs import Gcs
from tests.stores.https_server import HttpsServer
from tests.stores.hugging_face import HuggingFace
from tests.stores.registry import Registry
from tests.stores.s3 import S3
from tests.stores.store import Store

NAMESPACE: Final = "stores"
_Any = TypeVar("_Any", bound=Store)


class ClusterStores:
    """Starts each store when it is first asked for; all of them end with `close`."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        self._folder = folder
        self._running = ExitStack()
        self._stores: dict[str, Store] = {}
        cluster.kubectl("create", "namespace", NAMESPACE, check=False)

    @property
    def s3(self) -> S3:
        """Amazon S3's protocol over TLS of a private authority."""
        return self._store("s3", lambda at, host: S3(at, address=BRIDGE_ADDRESS, host=host, tls=tls.issue(at, host)))

    @property
    def gcs(self) -> Gcs:
        """Google Cloud Storage's protocol."""
        return self._store("gcs", lambda at, host: Gcs(at, address=BRIDGE_ADDRESS, host=host))

    @property
    def azure(self) -> Azure:
        """Azure Blob Storage's protocol."""
        return self._store("azure", lambda at, host: Azure(at, address=BRIDGE_ADDRESS, host=host))

    @property
    def registry(self) -> Registry:
        """An OCI registry with token authentication."""
        return self._store("registry", lambda at, host: Registry(at, address=BRIDGE_ADDRESS, host=host, tokens=True))

    @property
    def https(self) -> HttpsServer:
        """An HTTPS server with faults."""
        return self._store("https", lambda at, host: HttpsServer(at, address=BRIDGE_ADDRESS, host=host))

    @property
    def hugging_face(self) -> HuggingFace:
        """The Hugging Face Hub's routes."""
        return self._store("hub", lambda at, host: HuggingFace(at, address=BRIDGE_ADDRESS, host=host))

    def _store(self, name: str, make: Callable[[Path, str], _Any]) -> _Any:
        if name not in self._stores:
            folder = self._folder / name
            folder.mkdir()
            store = make(folder, f"{name}.{NAMESPACE}.svc")
            self._publish(name)
            self._stores[name] = self._running.enter_context(store)
        return self._stores[name]  # type: ignore[return-value]  # by name: each is of its kind

    def _publish(self, name: str) -> None:
        """A headless Service whose name resolves to the bridge's address, on which all the stores listen."""
        metadata = {"name": name, "namespace": NAMESPACE}
        service: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"clusterIP": "None", "ports": [{"port": 443}]},
        }
        endpoints: dict[str, Any] = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [BRIDGE_ADDRESS], "conditions": {"ready": True}}],
            "ports": [{"port": 443}],
        }
        self._cluster.apply([service, endpoints])

    def close(self) -> None:
        """End every store."""
        self._running.close()
