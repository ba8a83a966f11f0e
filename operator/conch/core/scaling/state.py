"""What the autoscaler remembers of an object from one look to the next. Memory only: it may be lost at any time."""

from dataclasses import dataclass, field, replace
from typing import Final

from conch.core.scaling.behavior import Change, Timed
from conch.core.scaling.history import History
from conch.core.scaling.instances import Instances
from conch.core.scaling.kept_needs import KeptNeeds
from conch.core.scaling.service_curve import SeenBatches, ServiceCurve
from conch.core.scaling.slots import Slots
from conch.core.scaling.tuned import Tuning

_STARTS_KEPT: Final = 30
TOLD_SECONDS: Final = 30.0
"""Agents that tell less often than this do not tell."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What came in the seconds before a moment."""

    at: float
    seconds: float
    count: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingState:
    """All moments are seconds of one monotonic clock."""

    desired: int
    began: float
    """Since when it looks, and everybody tells what comes."""
    at: float
    """When it looked last."""
    busy_at: float
    """When anything last came, was executed or held; or not everybody told, which may hide it."""
    history: History
    recent: tuple[Arrivals, ...] = ()
    """Of the last seconds, exactly."""
    workload: str = ""
    """Whose batches they are."""
    curve_before: ServiceCurve | None = None
    """What the revision before did, until this one has executed enough."""
    batches: SeenBatches = field(default_factory=SeenBatches)
    starts: tuple[float, ...] = ()
    """How long the last pods took to serve, seconds."""
    answered: float = 0.0
    late: float = 0.0
    """Of the last ten minutes, fading."""
    came: float = 0.0
    executed: float = 0.0
    """Requests of the last while, fading: those that came, and those that Triton executed well."""
    executed_seconds: float = 0.0
    """How long that while is, fading as well."""
    executed_share: float = 1.0
    executed_rate: float | None = None
    """Of those that came, and per second, when it was told last."""
    doubtful: bool = False
    """Whether more came in the last look than can have cost the servers anything."""
    answered_lately: float = 0.0
    answered_seconds: float = 0.0
    """What the gateways saw answered in the last while, whoever answered, and how long that is; fading."""
    executed_told_at: float | None = None
    latencies_seen: int = 0
    """Looks that told of latencies."""
    quickest_seconds: float | None = None
    """The least mean latency that was seen: what a request takes when nobody else is there."""
    slots: Slots = field(default_factory=Slots)
    """Of a streaming model."""
    queues_since: float | None = None
    """Since when requests wait longer at the servers than they should."""
    short_at: float | None = None
    """When more came last than what was ready carries."""
    strained: Timed | None = None
    """The count that queues asked for last though no more came than what was ready should carry."""
    needs: KeptNeeds | None = None
    """What the load needed of late, as far as it is kept."""
    surges: tuple[Timed, ...] = ()
    """Counts that sudden loads asked for."""
    wanted: tuple[Timed, ...] = ()
    """Counts that were wanted, whatever was allowed; kept for `behavior`."""
    changes: tuple[Change, ...] = ()
    instances: Instances = field(default_factory=Instances)
    tuning: Tuning | None = None

    @staticmethod
    def initial(replicas: int, now: float, instances: int | None = None) -> "ScalingState":
        """Nothing known but how many there are."""
        return ScalingState(
            desired=replicas,
            began=now,
            at=now,
            busy_at=now,
            history=History.empty(),
            instances=Instances(count=instances),
        )

    def set_back(self, now: float) -> "ScalingState":
        """With a clock that went back to `now`: nothing that is remembered is later, and looking begins anew."""

        def capped(counts: tuple[Timed, ...]) -> tuple[Timed, ...]:
            return tuple(replace(each, at=min(each.at, now)) for each in counts)

        return replace(
            self,
            began=now,
            at=now,
            busy_at=min(self.busy_at, now),
            recent=(),
            executed_told_at=None,
            slots=replace(self.slots, since=None),
            queues_since=None,
            short_at=None,
            strained=None,
            surges=capped(self.surges),
            wanted=capped(self.wanted),
            changes=tuple(replace(each, at=min(each.at, now)) for each in self.changes),
            tuning=replace(self.tuning, at=min(self.tuning.at, now)) if self.tuning else None,
        )

    def with_tuning(self, tuning: Tuning) -> "ScalingState":
        """With what was calculated meanwhile."""
        return replace(self, tuning=tuning)

    def executed_per_second(self, now: float) -> float | None:
        """What was executed of late; None while no agent tells."""
        is_told = self.executed_told_at is not None and now - self.executed_told_at <= TOLD_SECONDS
        return self.executed_rate if is_told else None

    @property
    def answered_per_second(self) -> float:
        """What the gateways saw answered of late, whatever the answer."""
        return self.answered_lately / self.answered_seconds if self.answered_seconds else 0.0

    def cold_start_seconds(self, prior_seconds: float) -> float:
        """From a pod's creation until it serves, as nine of ten did."""
        if not self.starts:
            return prior_seconds
        ordered = sorted(self.starts)
        return ordered[min(len(ordered) - 1, int(0.9 * len(ordered)))]

    @property
    def late_share(self) -> float | None:
        """Of the requests answered lately; None with too few."""
        return self.late / self.answered if self.answered >= _ANSWERED_LEAST else None

    def with_starts(self, starts: tuple[float, ...]) -> "ScalingState":
        """With how long further pods took."""
        return replace(self, starts=(*self.starts, *starts)[-_STARTS_KEPT:]) if starts else self


_ANSWERED_LEAST: Final = 20.0
