"""What the e2e tests do with gateways: a load on a model's address, the fleet's pods, the ports behind it."""

from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.cluster.client import Cluster
from tests.load import Load, Plan, Protocol, Stream, Tensor
from tests.support.inference import digits
from tests.support.installation import NAMESPACE
from tests.support.waiting import until

_SELECTOR: Final = "app.kubernetes.io/component=gateway"
DEPLOYMENT: Final = "deployment/conch-gateway"


def gateway_pods(cluster: Cluster) -> list[dict[str, Any]]:
    """The gateway pods that are not on their way out."""
    items = cluster.get("pods", "-n", NAMESPACE, "-l", _SELECTOR)["items"]
    return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]


def ready_gateways(cluster: Cluster) -> set[str]:
    """Addresses of the gateways that the kubelets call ready."""
    return {
        pod["status"]["podIP"]
        for pod in gateway_pods(cluster)
        if any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", ()))
    }


def wait_rolled(cluster: Cluster) -> None:
    """Wait until the fleet is as its Deployment wants it, and nothing older is left."""
    cluster.kubectl("rollout", "status", DEPLOYMENT, "-n", NAMESPACE, "--timeout=240s")
    until(
        lambda: len(cluster.get("pods", "-n", NAMESPACE, "-l", _SELECTOR)["items"]) == 2,
        "the gateways of before to be gone",
        seconds=120,
    )


def digits_load(
    address: str,
    model: str,
    folder: Path,
    *,
    rate_per_second: float,
    duration_seconds: float,
    timeout_seconds: float = 30,
    lateness_bound_ms: float = 100,
    protocols: tuple[Protocol, ...] = (Protocol.HTTP, Protocol.GRPC, Protocol.GRPC_STREAM),
) -> Load:
    """An open-loop load of the sample model through its Service, shared evenly by the protocols."""
    pixels = Tensor(name="pixels", datatype="FP32", shape=(1, 64), data=tuple(digits()[0].pixels.tolist()))
    streams = tuple(
        Stream(
            protocol=protocol,
            address=f"{address}:{8000 if protocol is Protocol.HTTP else 8001}",
            model=model,
            rate_per_second=rate_per_second / len(protocols),
            poisson=True,
            inputs=(pixels,),
        )
        for protocol in protocols
    )
    plan = Plan(
        streams=streams,
        duration_seconds=duration_seconds,
        timeout_seconds=timeout_seconds,
        failures_kept=1000,
        lateness_bound_ms=lateness_bound_ms,
    )
    return Load(plan, folder)


lossless_load: Final = partial(digits_load, lateness_bound_ms=2000)
"""Where only what is lost is asked: for that, a machine that stands still for a moment is no matter."""
