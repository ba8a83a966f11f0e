"""What gateways have compared of the candidate of each object, all of them together, from counters that only grow.

A workload's name is never used again, so all that is counted for it belongs to this rollout: after a restart of the
operator, what gateways have counted before is there again. Kept in memory for those that have gone meanwhile.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from conch.api.gateway_report import ShadowTraffic
from conch.api.status import ModelDeploymentStatus
from conch.core.analysis.copies import NOTHING_COPIED, Copies
from conch.core.observed import ObservedGateway

_Source = tuple[str, str]
"""A gateway, and which life of its counters."""


@dataclass(slots=True)
class _Kept:
    name: tuple[str, str]
    """The workload, and how its answers are compared."""
    latest: dict[_Source, ShadowTraffic] = field(default_factory=dict)
    """Also of those that are gone."""
    example: str = ""


class CopyBook:
    """One candidate per object."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def forget(self, uid: str) -> None:
        """The object is gone, or nothing of it is compared."""
        self._kept.pop(uid, None)

    def read(self, uid: str, status: ModelDeploymentStatus, gateways: Iterable[ObservedGateway]) -> Copies:
        """What was compared of the object's candidate by now, in the way that status says."""
        shadow = status.rollout.shadow if status.rollout else None
        if shadow is None or status.candidate is None:
            self.forget(uid)
            return NOTHING_COPIED
        name = (status.candidate.workload, shadow.share.comparison)
        kept = self._kept.get(uid)
        if kept is None or kept.name != name:
            kept = self._kept[uid] = _Kept(name)
        for gateway in gateways:
            told = gateway.traffic.shadows.get(name[0]) if gateway.traffic else None
            if told is None or told.comparison != name[1]:
                continue
            source = (gateway.name, told.epoch)
            if told.example and (source not in kept.latest or kept.latest[source].example != told.example):
                kept.example = told.example
            kept.latest[source] = told
        return _sum(kept)


def _sum(kept: _Kept) -> Copies:
    told = kept.latest.values()
    return Copies(
        compared=sum(each.compared for each in told),
        disagreed=sum(each.disagreed for each in told),
        failed=sum(each.failed for each in told),
        skipped=sum(each.skipped for each in told),
        dropped=sum(each.dropped for each in told),
        stable_latency=_buckets(told, lambda each: each.stable_latency),
        candidate_latency=_buckets(told, lambda each: each.candidate_latency),
        example=kept.example,
    )


def _buckets(told: Iterable[ShadowTraffic], latency: Callable[[ShadowTraffic], tuple[int, ...]]) -> tuple[int, ...]:
    columns: Iterable[Any] = zip_longest(*map(latency, told), fillvalue=0)
    return tuple(map(sum, columns))
