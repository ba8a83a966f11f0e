"""The demo's autoscaled model: slow enough for a handful of requests a second to be more than one server carries."""

import json
from pathlib import Path
from typing import Any, Final

import yaml

from tests.cluster.client import Cluster
from tests.support.inference import SAMPLE
from tests.support.timed_model import timed_model

SCALED: Final = "slow-digits"
SERVICE_SECONDS: Final = 0.08
CEILING: Final = 1 / SERVICE_SECONDS
IDLE_SECONDS: Final = 10
ARCHIVE: Final = f"{SCALED}.tar.gz"


def deploy(cluster: Cluster, namespace: str) -> None:
    """Ask for it."""
    cluster.kubectl("apply", "-f", "-", "-n", namespace, input=json.dumps(manifest(namespace)))


def manifest(namespace: str) -> dict[str, Any]:
    """The sample's, with another model, and a latency that is owed instead of a number of replicas."""
    body: dict[str, Any] = yaml.safe_load((SAMPLE / "model-deployment.yaml").read_text())
    body["metadata"]["name"] = SCALED
    body["spec"]["model"] = {"version": 1, "source": {"uri": f"http://model-store.{namespace}.svc/{ARCHIVE}"}}
    body["spec"]["autoscaling"] = {
        "minReplicas": 0,
        "maxReplicas": 4,
        "objective": {"latencyMs": 500},
        "scaleToZero": {"idleSeconds": IDLE_SECONDS},
    }
    return body


def pack(folder: Path) -> Path:
    """The model as a file for the store."""
    file = folder / ARCHIVE
    file.write_bytes(timed_model(service_seconds=SERVICE_SECONDS))
    return file
