"""The demo's load that rises and ends: servers follow it, go to zero, and one request wakes the model again."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import httpx
from rich.console import Console

from conch.api.model_deployment import ModelDeployment
from conch.api.reasons import Reason
from tests.cluster.client import Cluster, existing
from tests.cluster.constants import CHECKOUT_STATE, REPOSITORY
from tests.cluster.errors import ClusterError
from tests.demo import scaling_picture
from tests.demo.model import NAMESPACE
from tests.demo.rollout_view import NotInTimeError
from tests.demo.rollouts import fates
from tests.demo.scaled import CEILING, SCALED, deploy
from tests.demo.scaling_view import ScalingView
from tests.demo.service import service_address
from tests.load import Load, Protocol, Result
from tests.support.gateways import digits_load
from tests.support.inference import digits

PICTURE: Final = CHECKOUT_STATE / "demo-autoscaling.png"
_CALM_PER_SECOND: Final = 3.0
_RISE: Final = 5
_LONGEST_SECONDS: Final = 600
"""More than the limits below together; loads are stopped before."""
_LIMIT_SECONDS: Final = 120
_REQUEST_SECONDS: Final = 120
_SHOWN_REQUESTS: Final = 60
"""Answered with enough servers, so that the picture shows it."""


class Scaling:
    """`run` once. On the local cluster the demo ends with a reason when something goes otherwise than it should."""

    def __init__(self, cluster: Cluster, console: Console, folder: Path) -> None:
        self._cluster, self._console, self._folder = cluster, console, folder
        self._view = ScalingView(cluster, NAMESPACE, SCALED, console)

    def run(self) -> None:
        """All of it."""
        try:
            deploy(self._cluster, NAMESPACE)
            self._watch(lambda owner: _ready(owner) and owner.status.ready_replicas == 1)
            with service_address(self._cluster, SCALED) as host:
                results = self._rise_and_end(host)
                self._watch(lambda owner: owner.status.replicas == 0 and _reason(owner) == Reason.SCALED_TO_ZERO)
                self._wake(host)
        except (NotInTimeError, ClusterError, httpx.HTTPError) as error:
            self._went_otherwise(f"{SCALED}: {error}")
            return
        for result in results:
            for line in fates(result):
                self._console.print(line, markup=False, soft_wrap=True)
        scaling_picture.draw(self._view.samples, results, PICTURE)
        self._console.print(f"The picture: {PICTURE.relative_to(REPOSITORY)}", markup=False, soft_wrap=True)

    def _rise_and_end(self, host: str) -> list[Result]:
        with self._load(host, "calm", _CALM_PER_SECOND) as calm:
            self._view.loads = [calm]
            self._watch(lambda owner: bool(owner.status.autoscaling and owner.status.autoscaling.curve))
            with self._load(host, "more", (_RISE - 1) * _CALM_PER_SECOND) as more:
                self._view.loads = [calm, more]
                self._watch(lambda owner: owner.status.ready_replicas * CEILING > _RISE * _CALM_PER_SECOND)
                shown = more.progress()["answered"] + _SHOWN_REQUESTS
                self._watch(lambda owner: _ready(owner) and more.progress()["answered"] >= shown)
                results = [calm.stop(), more.stop()]
        self._view.loads = []
        return results

    def _load(self, host: str, phase: str, per_second: float) -> Load:
        return digits_load(
            host,
            SCALED,
            self._folder / phase,
            rate_per_second=per_second,
            duration_seconds=_LONGEST_SECONDS,
            timeout_seconds=_REQUEST_SECONDS,
            protocols=(Protocol.HTTP, Protocol.GRPC),
        )

    def _wake(self, host: str) -> None:
        """One request, while nothing runs that could answer it."""
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(_ask, host)
            self._watch(lambda owner: _ready(owner) and owner.status.ready_replicas > 0)
            self._console.print(
                f"One request woke it, was held until a server was ready, and answered after {asked.result():.1f} s",
                markup=False,
                soft_wrap=True,
            )

    def _watch(self, done: Callable[[ModelDeployment], bool]) -> None:
        self._view.watch(done, limit_seconds=_LIMIT_SECONDS)

    def _went_otherwise(self, words: str) -> None:
        if not existing():
            raise SystemExit(words)
        self._console.print(f"Not as on the local cluster: {words}", style="yellow", markup=False, soft_wrap=True)


def _ask(host: str) -> float:
    """Seconds until it is answered."""
    inputs = [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": digits()[0].pixels.tolist()}]
    url, started = f"http://{host}:8000/v2/models/{SCALED}/infer", time.monotonic()
    httpx.post(url, json={"inputs": inputs}, timeout=_REQUEST_SECONDS, trust_env=False).raise_for_status()
    return time.monotonic() - started


def _ready(owner: ModelDeployment) -> bool:
    status = owner.status
    is_current = status.observed_generation == owner.generation
    return is_current and any(each.type == "Ready" and each.status == "True" for each in status.conditions)


def _reason(owner: ModelDeployment) -> str:
    return next((each.reason for each in owner.status.conditions if each.type == "Ready"), "")
