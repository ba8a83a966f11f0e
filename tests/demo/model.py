"""The sample model of the demo: its store in the cluster, its versions, and how a new one takes over."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.cluster.client import Cluster
from tests.demo import scaled
from tests.support import versions
from tests.support.inference import SAMPLE

NAMESPACE: Final = "demo"
NAME: Final = "digits"
FIRST_VERSION: Final = 1
GOOD_VERSION: Final = 2
BAD_VERSION: Final = 3
IN_PLACE_VERSION: Final = 4

_SAMPLE: Final = SAMPLE / "model-deployment.yaml"
_IN_NAMESPACE: Final = ("-n", NAMESPACE)
_ANSWERED: Final = {"successRate": {"minimumPercent": 98}, "minimumSamples": 50}
# Not against the stable revision: at the last step that gets no request to compare with.
_FAST: Final = {"latency": {"percentile": 95, "maxMilliseconds": 500}, "minimumSamples": 50}
_CHECKS: Final[Mapping[int, list[dict[str, Any]]]] = {
    GOOD_VERSION: [_ANSWERED, _FAST, {"goldenSet": {}}],
    BAD_VERSION: [_ANSWERED],
    IN_PLACE_VERSION: [_ANSWERED, {"goldenSet": {}}],
}
_STRATEGIES: Final = {IN_PLACE_VERSION: "InPlace"}
_STEPS: Final = [{"weight": 25, "pauseSeconds": 5}, {"weight": 50, "pauseSeconds": 5}]
_KEEP_WARM_SECONDS: Final = 5


def start(cluster: Cluster) -> None:
    """The sample's own three commands (model-store.yaml), then the ModelDeployment; what an earlier demo kept goes."""
    cluster.kubectl("create", "namespace", NAMESPACE, check=False)
    cluster.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    # A version that was rolled back is not tried again, and a store that runs sees other files only later.
    for old in (f"mdep/{NAME}", f"mdep/{scaled.SCALED}", "deployment/model-store", "configmap/model-store"):
        cluster.kubectl("delete", old, *_IN_NAMESPACE, "--ignore-not-found")
    with tempfile.TemporaryDirectory(prefix="conch-demo-") as folder:
        files = [SAMPLE / "digits.onnx", *pack(Path(folder)), scaled.pack(Path(folder))]
        named = [f"--from-file={file}" for file in files]
        cluster.kubectl("create", "configmap", "model-store", *named, *_IN_NAMESPACE)
    cluster.kubectl("apply", "-f", str(SAMPLE / "model-store.yaml"), *_IN_NAMESPACE)
    cluster.kubectl("rollout", "status", "deployment/model-store", *_IN_NAMESPACE, "--timeout=120s")
    cluster.kubectl("apply", "-f", str(_SAMPLE), *_IN_NAMESPACE)


def deploy(cluster: Cluster, version: int) -> None:
    """Ask for another version."""
    cluster.kubectl("apply", "-f", "-", *_IN_NAMESPACE, input=json.dumps(manifest(version)))


def manifest(version: int) -> dict[str, Any]:
    """The sample's ModelDeployment; with another version than its own, which takes over step by step."""
    body: dict[str, Any] = yaml.safe_load(_SAMPLE.read_text())
    if version == FIRST_VERSION:
        return body
    source = {"uri": f"http://model-store.{NAMESPACE}.svc/{_archive(version)}"}
    rollout = {"steps": _STEPS, "analysis": _CHECKS[version], "keepWarmSeconds": _KEEP_WARM_SECONDS}
    if version in _STRATEGIES:
        rollout |= {"strategy": _STRATEGIES[version], "steps": []}
    body["spec"] |= {"model": {"version": version, "source": source}, "rollout": rollout}
    return body


def pack(folder: Path) -> list[Path]:
    """The versions after the first as files: the sample model with its golden set, and one that fails."""
    contents = {
        GOOD_VERSION: versions.recorded(GOOD_VERSION),
        BAD_VERSION: versions.failing(BAD_VERSION, each=5),
        IN_PLACE_VERSION: versions.recorded(IN_PLACE_VERSION),
    }
    files = []
    for version, content in contents.items():
        file = folder / _archive(version)
        file.write_bytes(content)
        files.append(file)
    return files


def _archive(version: int) -> str:
    return f"{NAME}-{version}.tar.gz"
