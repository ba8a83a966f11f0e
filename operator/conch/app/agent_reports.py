"""Asks the agents of model pods how far their model is: a pod on its way every second, one that serves now and then.

Agents that do not answer cost the most, and a tenant can have a thousand of them (a network policy is enough). They are
asked ever more rarely and in a lane of their own, and no object has more than its share of either lane.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import structlog

from conch.api import names, pod
from conch.api.agent_report import AgentPhase, AgentReport
from conch.api.gateway import GatewayMode
from conch.api.model_deployment import InvalidSpec
from conch.api.spec import ModelDeploymentSpec
from conch.api.status import ModelDeploymentStatus
from conch.app import metrics
from conch.app.cluster_view import ClusterView
from conch.core.in_place import shares_home
from conch.core.observed_pod import ObservedPod
from conch.core.rollout.phases import UNDER_WAY
from conch.kube.reflector import ObjectKey

_TICK_SECONDS: Final = 0.5
_STARTING_SECONDS: Final = 1.0
_SERVING_SECONDS: Final = 30.0
_JUDGED_SECONDS: Final = 2.0
_AUTOSCALED_SECONDS: Final = 10.0
_UNLEARNT_SECONDS: Final = 2.0
"""While nothing is known of how long a workload's batches take."""
_ARRIVALS_SECONDS: Final = 2.0
"""Where requests go past the gateways, so that only the pods can tell of them."""
_SILENT_SECONDS_MOST: Final = 30.0
_NEEDED_SECONDS_MOST: Final = 4.0
"""Of a silent agent that something waits for: one of a pod that the kubelet calls ready, or of a rollout."""
_TIMEOUT: Final = aiohttp.ClientTimeout(total=3, sock_connect=1)
_CONCURRENT: Final = 64
_CONCURRENT_PER_OBJECT: Final = 16
_MISSES: Final = 3
_ANSWER_LIMIT_BYTES: Final = 64 * 1024

_MOVING: Final = (
    "fetched_bytes",
    "files",
    "bytes_per_second",
    "inference",
    "gpu_memory_used_bytes",
    "gpu_memory_total_bytes",
)

_ALIVE: Final = ("Pending", "Running")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one agent said last."""

    report: AgentReport | None = None
    key_refused: bool = False
    unreachable: bool = False
    """It was asked several times in vain, and has never answered."""


class AgentReports:
    """The last answer of every pod's agent; `on_change` is called with the object whose pod says something new.

    `is_used` says whether requests come for an object now: only then is there anything to learn in a hurry.
    """

    def __init__(
        self,
        view: ClusterView,
        *,
        installation_key: bytes,
        on_change: Callable[[ObjectKey], None],
        is_used: Callable[[ObjectKey], bool],
        clock: Callable[[], float],
    ) -> None:
        self._view = view
        self._is_used = is_used
        self._installation_key = installation_key
        self._on_change = on_change
        self._clock = clock
        self._answers: dict[str, Answer] = {}
        self._asked_at: dict[str, float] = {}
        self._asking: set[str] = set()
        self._misses: dict[str, int] = {}
        self._silences: dict[str, int] = {}
        self._executed: dict[str, str] = {}
        """Pods that have told of executions, and their workloads."""
        self._answering_lane = asyncio.Semaphore(_CONCURRENT)
        self._silent_lane = asyncio.Semaphore(_CONCURRENT)
        self._shares: dict[ObjectKey, asyncio.Semaphore] = {}

    def answer(self, pod_uid: str) -> Answer:
        """What this pod's agent said last; empty when it could not be asked."""
        return self._answers.get(pod_uid, Answer())

    async def run(self) -> None:
        """Ask until cancelled. What was said before is of an earlier leadership, and old."""
        for known in self._of_pods():
            known.clear()
        self._asking.clear()
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session, asyncio.TaskGroup() as polls:
            while True:
                for key, observed in self._due_now():
                    # Not awaited here: a pod that does not answer must not hold the others up.
                    polls.create_task(self._poll(session, key, observed))
                await asyncio.sleep(_TICK_SECONDS)

    def _of_pods(self) -> tuple[dict[str, Any], ...]:
        return (self._answers, self._asked_at, self._misses, self._silences, self._executed)

    def _due_now(self) -> list[tuple[ObjectKey, ObservedPod]]:
        now = self._clock()
        alive: set[str] = set()
        keys: set[ObjectKey] = set()
        learnt = frozenset(self._executed.values())
        due = []
        for key, observed in self._view.all_pods():
            alive.add(observed.uid)
            keys.add(key)
            running = observed.phase in _ALIVE and not observed.deleting
            askable = observed.ip and running and observed.uid not in self._asking
            if askable and self._is_due(
                observed,
                now,
                serving_seconds=self._serving_seconds(key, observed, learnt),
                silent_seconds_most=self._silent_seconds_most(key, observed),
            ):
                due.append((key, observed))
        for known in self._of_pods():
            for gone in known.keys() - alive:
                del known[gone]
        for gone_key in self._shares.keys() - keys:
            del self._shares[gone_key]
        return due

    def _serving_seconds(self, key: ObjectKey, observed: ObservedPod, learnt: frozenset[str]) -> float:
        """How often a pod that serves is asked, by what its counters are needed for; `learnt` are workloads."""
        owner = self._view.model_deployment(key)
        if owner is None or isinstance(owner.spec, InvalidSpec):
            return _SERVING_SECONDS
        if shares_home(owner.status.stable, owner.status.candidate):
            # It prepares another model, or changes to it.
            return _STARTING_SECONDS
        if _is_judged(owner.status, owner.spec):
            return _JUDGED_SECONDS
        if owner.spec.autoscaling is None:
            return _SERVING_SECONDS
        if owner.spec.gateway.mode is not GatewayMode.GATEWAY:
            return _ARRIVALS_SECONDS
        return _AUTOSCALED_SECONDS if _place(key, observed) in learnt or not self._is_used(key) else _UNLEARNT_SECONDS

    def _silent_seconds_most(self, key: ObjectKey, observed: ObservedPod) -> float:
        """How rarely a pod is asked at most whose agent does not answer.

        One that the kubelet calls ready answers somebody, and a rollout goes no further without its pods' word.
        """
        owner = self._view.model_deployment(key)
        rollout = owner.status.rollout if owner else None
        is_needed = observed.ready or (rollout is not None and rollout.phase in UNDER_WAY)
        return _NEEDED_SECONDS_MOST if is_needed else _SILENT_SECONDS_MOST

    def _is_due(
        self,
        observed: ObservedPod,
        now: float,
        *,
        serving_seconds: float = _SERVING_SECONDS,
        silent_seconds_most: float = _SILENT_SECONDS_MOST,
    ) -> bool:
        """Whether it is this pod's turn; by what is true now, so a pod that stops serving is asked at once."""
        report = self.answer(observed.uid).report
        serves = observed.ready and report is not None and report.phase is AgentPhase.READY and not _replays(report)
        silences = self._silences.get(observed.uid, 0)
        wait = serving_seconds if serves else min(_STARTING_SECONDS * 2**silences, silent_seconds_most)
        if now - self._asked_at.get(observed.uid, float("-inf")) < wait:
            return False
        # Jitter, so that pods that started together are not asked together for ever.
        self._asked_at[observed.uid] = now - random.uniform(0, 0.2) * wait  # noqa: S311 - jitter
        return True

    async def _poll(self, session: aiohttp.ClientSession, key: ObjectKey, observed: ObservedPod) -> None:
        owner = self._view.model_deployment(key)
        if owner is None:
            return
        self._asking.add(observed.uid)
        share = self._shares.setdefault(key, asyncio.Semaphore(_CONCURRENT_PER_OBJECT))
        lane = self._silent_lane if self._silences.get(observed.uid) else self._answering_lane
        status_key = names.status_key(names.admin_key(self._installation_key, owner.uid))
        try:
            # The share first: who waits for it must not hold a place in the lane.
            async with share, lane:
                answer = await self._ask(session, observed, status_key)
            self._silences.pop(observed.uid, None)
        except TimeoutError:
            answer = None
            self._silences[observed.uid] = min(self._silences.get(observed.uid, 0) + 1, 10)
        finally:
            self._asking.discard(observed.uid)
        before = self.answer(observed.uid)
        if answer is None:
            # One lost answer says nothing. Several do, unless the pod serves: then what it said last still holds.
            self._misses[observed.uid] = self._misses.get(observed.uid, 0) + 1
            lost = self._misses[observed.uid] >= _MISSES
            forgotten = lost and (before.report is None or not observed.ready)
            answer = Answer(unreachable=True) if forgotten else before
        else:
            self._misses.pop(observed.uid, None)
        self._answers[observed.uid] = answer
        if answer.report and answer.report.inference and answer.report.inference.has_executed:
            self._executed[observed.uid] = _place(key, observed)
        if _said(answer) != _said(before):
            self._on_change(key)

    async def _ask(self, session: aiohttp.ClientSession, observed: ObservedPod, status_key: str) -> Answer | None:
        """Its answer, None for one that makes no sense; raises TimeoutError when it is silent."""
        host = f"[{observed.ip}]" if ":" in observed.ip else observed.ip
        try:
            async with session.get(
                f"http://{host}:{pod.AGENT_PORT}/status",
                headers={"Authorization": f"Bearer {status_key}"},
                allow_redirects=False,
            ) as response:
                if response.status == 401:
                    metrics.AGENT_POLLS.labels("refused").inc()
                    return Answer(key_refused=True)
                response.raise_for_status()
                answer = Answer(report=AgentReport.model_validate_json(await _bounded(response)))
        except TimeoutError:
            metrics.AGENT_POLLS.labels("silent").inc()
            raise
        except Exception as error:  # whatever a pod answers, it concerns that pod alone
            metrics.AGENT_POLLS.labels("failed").inc()
            _log.debug("agent not asked", pod=observed.name, error=str(error) or type(error).__name__)
            return None
        metrics.AGENT_POLLS.labels("answered").inc()
        return answer


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """The whole body; raises ValueError when it is longer than any honest agent's."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(4096):
        body += chunk
        if len(body) > _ANSWER_LIMIT_BYTES:
            raise ValueError("the answer is too long")
    return bytes(body)


def _is_judged(status: ModelDeploymentStatus, spec: ModelDeploymentSpec) -> bool:
    """Whether a rollout is judged now by what Triton counts."""
    rollout = status.rollout
    if rollout is None or rollout.phase not in UNDER_WAY or rollout.observed_since is None:
        return False
    analysis = spec.rollout.analysis
    if spec.gateway.mode is GatewayMode.GATEWAY_API and (
        analysis is None or any(check.success_rate for check in analysis)
    ):
        return True
    return any(check.queue_time for check in analysis or ())


def _place(key: ObjectKey, observed: ObservedPod) -> str:
    """The workload of a pod, among those of all objects."""
    return "/".join((*key, observed.workload))


def _replays(report: AgentReport) -> bool:
    """Whether it serves and has yet to say what came of its golden set; an older agent says nothing of the kind."""
    return report.golden is None and report.replays_golden_set


def _said(answer: Answer) -> tuple[object, ...]:
    """What is worth a new plan: not every byte that was fetched."""
    report = answer.report
    if report is None:
        return (answer.key_refused, answer.unreachable)
    return (*(getattr(report, name) for name in AgentReport.model_fields if name not in _MOVING),)
