"""Looks at every autoscaled object every two seconds, and at once when more comes than it can carry or one is held.

What is decided is pure (`conch.core.scaling`); here is its memory, and when it is asked. The count reaches the cluster
by the plan, like everything else.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from heapq import nsmallest
from time import perf_counter
from typing import Final

import structlog

from conch.api.gateway import GatewayMode
from conch.api.instances import AUTO_INSTANCES
from conch.api.model_deployment import InvalidSpec, ModelDeployment
from conch.app import metrics
from conch.app.agent_reports import AgentReports
from conch.app.cluster_view import ClusterView
from conch.app.gateway_reports import GatewayReports
from conch.app.scaling_signals import SignalReader
from conch.core.autoscaling import autoscaling_of, count_before, instances_before, scaling_floor, serving_workload
from conch.core.in_place import pods_as_they_serve
from conch.core.scaling.decide import decide
from conch.core.scaling.settings import Metric, ScalingSettings, scaling_settings
from conch.core.scaling.state import ScalingState
from conch.core.scaling.tuning import tune, wants_tuning
from conch.core.scaling.view import ScalingView, view_of
from conch.kube.reflector import ObjectKey

LOOK_SECONDS: Final = 2.0
_USED_SECONDS: Final = 10.0
_SLICES: Final = 20
"""Into so many parts the objects are spread over these two seconds."""
_TUNING_SHARE: Final = 0.2
"""Of one core, at most, for late surfaces and replays."""
_TUNED_AT_A_LOOK: Final = 20
"""Who is due is looked up among all objects: of a thousand young ones that would cost as much as to tune them."""
_NOTHING_TO_TUNE_SECONDS: Final = 1.0
_AFTER_FAULT_SECONDS: Final = 60.0
"""What cannot be tuned must not be tried for ever in the place of what can."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Known:
    """One object's memory."""

    uid: str
    settings: ScalingSettings
    state: ScalingState
    reader: SignalReader = field(default_factory=SignalReader)
    view: ScalingView | None = None
    carried: float = float("inf")
    """Requests per second and gateway that what is ready carries; more than that is worth a look at once."""
    no_tuning_before: float = float("-inf")


class Autoscaler:
    """Decides counts. `on_change` is called with an object whose count or reason is another one now."""

    def __init__(
        self,
        view: ClusterView,
        reports: AgentReports,
        gateways: GatewayReports,
        *,
        on_change: Callable[[ObjectKey], None],
        clock: Callable[[], float],
        now: Callable[[], datetime],
        cold_start_prior_seconds: float,
    ) -> None:
        self._view = view
        self._reports = reports
        self._gateways = gateways
        self._on_change = on_change
        self._clock = clock
        self._now = now
        self._cold_start_prior_seconds = cold_start_prior_seconds
        self._known: dict[ObjectKey, _Known] = {}

    def scaling(self, owner: ModelDeployment) -> ScalingView | None:
        """What was decided last for this very object."""
        known = self._known.get((owner.namespace, owner.name))
        return known.view if known is not None and known.uid == owner.uid else None

    def is_used(self, key: ObjectKey) -> bool:
        """Whether requests have come for it lately."""
        known = self._known.get(key)
        return known is not None and self._clock() - known.state.busy_at < _USED_SECONDS

    async def run(self) -> None:
        """Look until cancelled. What is remembered is old by the time of another leadership, and ends with this one."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._tune_for_ever())
                await self._look_for_ever()
        finally:
            self._known.clear()

    async def _look_for_ever(self) -> None:
        turn = 0
        while True:
            started = self._clock()
            for key in self._view.known():
                if hash(key) % _SLICES == turn:
                    self.look(key)
            self._forget_gone()
            turn = (turn + 1) % _SLICES
            await asyncio.sleep(max(0.0, LOOK_SECONDS / _SLICES - (self._clock() - started)))

    def came(self, key: ObjectKey, per_second: float) -> None:
        """A gateway told of new requests: if they are more than is carried, nobody waits for the next look."""
        known = self._known.get(key)
        if known is not None and per_second > known.carried:
            self.look(key)

    def look(self, key: ObjectKey) -> None:
        """Look at one object now, if it is autoscaled. A fault of one never reaches another."""
        owner = self._view.model_deployment(key)
        if owner is None or (asked := autoscaling_of(owner)) is None:
            self._known.pop(key, None)
            return
        try:
            settings = scaling_settings(
                asked,
                cold_start_prior_seconds=self._cold_start_prior_seconds,
                tries_instances=not isinstance(owner.spec, InvalidSpec)
                and owner.spec.runtime.instances == AUTO_INSTANCES,
            )
            known = self._known.get(key)
            if known is None or known.uid != owner.uid:
                state = ScalingState.initial(count_before(owner, asked), self._clock(), instances_before(owner))
                known = self._known[key] = _Known(uid=owner.uid, settings=settings, state=state)
            self._decide(key, known, settings, owner)
        except Exception:  # logged, and looked at again in two seconds
            metrics.SCALING_FAULTS.inc()
            _log.exception("not scaled", namespace=key[0], name=key[1])

    def _decide(self, key: ObjectKey, known: _Known, settings: ScalingSettings, owner: ModelDeployment) -> None:
        assert not isinstance(owner.spec, InvalidSpec)  # noqa: S101 - nothing is asked for by one
        at = self._clock()
        told = (replace(pod, report=self._reports.answer(pod.uid).report) for pod in self._view.pods(key))
        pods = pods_as_they_serve(told, owner.status)
        gateways = self._gateways.seen(key)
        signals = known.reader.read(
            gateways,
            pods,
            told_at={each.name: self._gateways.counted_at(each.name) for each in gateways if each.heard},
            through_gateways=owner.spec.gateway.mode is GatewayMode.GATEWAY,
            limit_milliseconds=settings.value if settings.metric is Metric.LATENCY else None,
            hold_seconds=owner.spec.gateway.effective_hold.seconds,
            floor=scaling_floor(owner),
            workload=serving_workload(owner),
            at=at,
            now=self._now(),
        )
        decision = decide(at, settings, known.state, signals)
        view = view_of(decision, settings)
        # Together: what was decided and is not told would never be decided again.
        before, known.view, known.state, known.settings = known.view, view, decision.state, settings
        capacity = decision.capacity
        known.carried = (
            capacity.carries(signals.ready) / max(1, len(gateways))
            if capacity is not None and not capacity.by_concurrency
            else float("inf")
        )
        if before is None or (before.desired, before.reason) != (known.view.desired, known.view.reason):
            if before is not None and before.desired != known.view.desired:
                metrics.SCALINGS.labels("up" if known.view.desired > before.desired else "down").inc()
            self._on_change(key)

    async def _tune_for_ever(self) -> None:
        """One object after the other, those first whose tuning is oldest; never more than a share of one core."""
        while True:
            due = self._due_for_tuning()
            for key in due:
                await self._tune(key)
            if not due:
                await asyncio.sleep(_NOTHING_TO_TUNE_SECONDS)

    async def _tune(self, key: ObjectKey) -> None:
        known = self._known.get(key)
        if known is None or not self._wants_tuning(key, known, self._clock()):
            return
        started = perf_counter()
        try:
            tuning = await asyncio.to_thread(tune, self._clock(), known.settings, known.state)
        except Exception:  # logged; the count goes by what was known before
            known.no_tuning_before = self._clock() + _AFTER_FAULT_SECONDS
            metrics.SCALING_FAULTS.inc()
            _log.exception("not tuned", namespace=key[0], name=key[1])
        else:
            if self._known.get(key) is known:
                known.state = known.state.with_tuning(tuning)
        took = perf_counter() - started
        metrics.TUNING_SECONDS.observe(took)
        await asyncio.sleep(max(took / _TUNING_SHARE - took, 0.01))

    def _due_for_tuning(self) -> list[ObjectKey]:
        now = self._clock()
        due = (
            (known.state.tuning.at if known.state.tuning else float("-inf"), key)
            for key, known in self._known.items()
            if now >= known.no_tuning_before and self._wants_tuning(key, known, now)
        )
        return [key for _, key in nsmallest(_TUNED_AT_A_LOOK, due)]

    def _wants_tuning(self, key: ObjectKey, known: _Known, now: float) -> bool:
        try:
            return wants_tuning(now, known.settings, known.state)
        except Exception:  # logged; a fault of one never reaches another
            known.no_tuning_before = now + _AFTER_FAULT_SECONDS
            metrics.SCALING_FAULTS.inc()
            _log.exception("not tuned", namespace=key[0], name=key[1])
            return False

    def _forget_gone(self) -> None:
        for key in self._known.keys() - set(self._view.known()):
            del self._known[key]
