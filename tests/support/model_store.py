"""The test's model server inside the cluster, and the files in it."""

from pathlib import Path
from typing import Any, Final

import httpx

from tests.cluster.client import Cluster
from tests.support.waiting import until

NAMESPACE: Final = "models"
HOST: Final = f"model-server.{NAMESPACE}.svc"
_SCRIPT: Final = Path(__file__).with_name("model_server.py")
_LABELS: Final = {"app": "model-server"}


class ModelStore:
    """`put` a file, use `uri(path)` in a ModelDeployment."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        cluster.kubectl("create", "namespace", NAMESPACE, check=False)
        cluster.apply([_config_map(), _deployment(), _service()])
        cluster.kubectl("rollout", "status", "deployment/model-server", "-n", NAMESPACE, "--timeout=120s")
        address = cluster.get("service", "model-server", "-n", NAMESPACE)["spec"]["clusterIP"]
        self._client = httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=10)
        until(lambda: self._client.get("/?counts").is_success, "the model server to answer")

    def uri(self, path: str) -> str:
        """The URI under which pods find a path."""
        return f"http://{HOST}{path}"

    def put(self, path: str, content: bytes) -> str:
        """Store a file; returns its URI."""
        self._client.put(path, content=content).raise_for_status()
        return self.uri(path)

    def reads(self, path: str) -> int:
        """How often the file was fetched."""
        counts: dict[str, int] = self._client.get("/?counts").json()
        return counts.get(path, 0)

    def close(self) -> None:
        """End the client."""
        self._client.close()


def _config_map() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "model-server", "namespace": NAMESPACE},
        "data": {"server.py": _SCRIPT.read_text()},
    }


def _deployment() -> dict[str, Any]:
    container = {
        "name": "server",
        "image": "localhost/conch:dev",
        "command": ["python3", "-u", "/app/server.py"],
        "readinessProbe": {"httpGet": {"path": "/?counts", "port": 8000}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "volumeMounts": [{"name": "app", "mountPath": "/app"}],
    }
    spec = {
        "containers": [container],
        "volumes": [{"name": "app", "configMap": {"name": "model-server"}}],
        "terminationGracePeriodSeconds": 1,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "model-server", "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": _LABELS},
            "template": {"metadata": {"labels": _LABELS}, "spec": spec},
        },
    }


def _service() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "model-server", "namespace": NAMESPACE},
        "spec": {"selector": _LABELS, "ports": [{"port": 80, "targetPort": 8000}]},
    }
