"""An autoscaled model of known speed on the whole cluster, the loads on it, and what became of its count."""

import time
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tests.e2e.conftest import Namespace
from tests.load import Load, Protocol
from tests.perf.timeline import Fact, Timeline
from tests.support.gateways import digits_load
from tests.support.inference import digits
from tests.support.model_store import ModelStore
from tests.support.timed_model import LONG, timed_model
from tests.support.waiting import until

NAME: Final = "digits"
SERVICE_SECONDS: Final = 0.08
CEILING: Final = 1 / SERVICE_SECONDS
"""Requests per second of one server that does nothing else."""
OBJECTIVE: Final = {"latencyMs": 500}
BASE_PER_SECOND: Final = 3.5
"""One server carries this within the objective, with half as much again as spare, and chance does not change that."""
STEP: Final = 5
BOTH: Final = (Protocol.HTTP, Protocol.GRPC)


class ScaledModel:
    """The model in a namespace, not deployed yet."""

    def __init__(self, namespace: Namespace, store: ModelStore, folder: Path, *, name: str = NAME) -> None:
        self.namespace, self.name = namespace, name
        self._store, self._folder = store, folder
        self._loads = 0

    def begin(
        self,
        *,
        service_seconds: float = SERVICE_SECONDS,
        load_seconds: float = 0.0,
        hold_seconds: int | None = None,
        **autoscaling: Any,
    ) -> None:
        """Deploy it, and wait until the server is there that proves that it can be loaded."""
        self.deploy(
            service_seconds=service_seconds, load_seconds=load_seconds, hold_seconds=hold_seconds, **autoscaling
        )
        self.namespace.wait_ready(self.name)

    def deploy(
        self,
        *,
        service_seconds: float = SERVICE_SECONDS,
        load_seconds: float = 0.0,
        hold_seconds: int | None = None,
        **autoscaling: Any,
    ) -> None:
        """Deploy it; its requests are held for as long as is usual, if nothing else is given."""
        content = timed_model(service_seconds=service_seconds, load_seconds=load_seconds)
        uri = self._store.put(f"/{self.namespace.name}/{self.name}.tar.gz", content)
        wanted = {"maxReplicas": 20, "objective": OBJECTIVE, **autoscaling}
        runtime = {"resources": {"cpu": "100m", "memory": "512Mi"}, "sharedMemory": "64Mi"}
        hold = {} if hold_seconds is None else {"gateway": {"hold": {"seconds": hold_seconds}}}
        self.namespace.deploy(self.name, uri, gpu={"count": 0}, runtime=runtime, autoscaling=wanted, **hold)

    @property
    def status(self) -> dict[str, Any]:
        """What the object says."""
        status: dict[str, Any] = self.namespace.mdep(self.name).get("status", {})
        return status

    @property
    def scaling(self) -> dict[str, Any]:
        """What the autoscaler says."""
        told: dict[str, Any] = self.status.get("autoscaling", {})
        return told

    @property
    def decisions(self) -> list[dict[str, Any]]:
        """The last changes, newest first."""
        told: list[dict[str, Any]] = self.scaling.get("decisions", [])
        return told

    def load(self, per_second: float, *, seconds: float = 300, timeout_seconds: float = 120) -> Load:
        """An open-loop load over HTTP and gRPC, beside any that there is."""
        self._loads += 1
        return digits_load(
            *(self.namespace.address(self.name), self.name, self._folder / f"load-{self._loads}"),
            rate_per_second=per_second,
            duration_seconds=seconds,
            timeout_seconds=timeout_seconds,
            protocols=BOTH,
        )

    def counts(self) -> "Counts":
        """Follow the count that is wanted."""
        return Counts(self.namespace, self.name)

    def wait_learnt(self) -> dict[str, Any]:
        """Wait until it is known what a server can do; returns what is told."""
        return until(lambda: self.scaling if "curve" in self.scaling else None, "the curve to be learnt", seconds=120)

    def wait_zero(self, *, seconds: float = 60) -> None:
        """Wait until nobody asks, nothing runs, and it says so."""

        def at_zero() -> bool:
            ready = self.namespace.condition(self.name, "Ready")
            return (ready.get("status"), ready.get("reason")) == ("True", "ScaledToZero")

        until(at_zero, f"{self.name} to say ScaledToZero", seconds=seconds)
        self.namespace.wait_no_pods(self.name)


class Counts(Timeline):
    """Every count that was wanted, as it was told, and how many of the pods were ready then."""

    def __init__(self, namespace: Namespace, name: str) -> None:
        self.told: list[tuple[float, int, int]] = []
        """(time.monotonic(), wanted, ready)"""
        super().__init__(namespace.cluster, namespace.name, "mdep", {"never": self._keep(name)})

    def _keep(self, name: str) -> Fact:
        def keep(live: dict[str, Any]) -> bool:
            status = live.get("status", {})
            if live["metadata"]["name"] == name and "desiredReplicas" in status:
                self.told.append((time.monotonic(), status["desiredReplicas"], status.get("readyReplicas", 0)))
            return False

        return keep

    @property
    def wanted(self) -> list[int]:
        """One after the other, each once as long as it stays."""
        counts = [wanted for _, wanted, _ in self.told]
        return [count for place, count in enumerate(counts) if place == 0 or count != counts[place - 1]]

    def since(self, moment: float) -> list[int]:
        """Counts that were wanted at and after a moment of time.monotonic()."""
        before = [wanted for at, wanted, _ in self.told if at <= moment][-1:]
        return before + [wanted for at, wanted, _ in self.told if at > moment]


def long_drawing(seconds: float) -> NDArray[np.float32]:
    """Pixels that the model takes so long to answer."""
    pixels = np.stack([digits()[0].pixels]).copy()
    pixels[0, 0] = LONG + seconds
    return pixels


def turns(counts: list[int]) -> int:
    """How often counts that went up go down next, or the other way round.

    >>> turns([1, 2, 4, 3]), turns([1, 3, 2, 3])
    (1, 2)
    """
    steps = [after > before for before, after in pairwise(counts) if after != before]
    return sum(before != after for before, after in pairwise(steps))
