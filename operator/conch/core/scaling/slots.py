"""How many requests a server of a streaming model can have at the same time, by what was seen to go well.

How long its executions take tells nothing of that: one request has many answers, and more of them fit side by side.
What a server had all through a while in which requests were answered in time, it can have again. A moment's count says
nothing: those that are one too many are late only when they end.
"""

from dataclasses import dataclass, replace
from typing import Final

from conch.core.scaling.settings import Metric, ScalingSettings
from conch.core.scaling.signals import Signals

_SEEN_SECONDS_LEAST: Final = 10.0
_FADE: Final = 0.99
"""Of what was seen, with each further while: servers and requests change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """What was seen of one object."""

    proven: float = 0.0
    """Requests at the same time and server that were answered in time."""
    since: float | None = None
    """Since when it is being seen; the rest is of this while."""
    least: float = 0.0
    """Requests that each server had at every moment."""
    answered: int = 0
    late: int = 0


def slots_seen(now: float, settings: ScalingSettings, slots: Slots, signals: Signals) -> Slots:
    """With one look more. A while lasts as long as a request may take, so that those that are late are seen to be."""
    if settings.metric is not Metric.LATENCY or not signals.ready:
        return replace(slots, since=None)
    each, since = signals.in_flight / signals.ready, slots.since
    if since is None:
        return replace(slots, since=now, least=each, answered=0, late=0)
    slots = replace(
        slots,
        least=min(slots.least, each),
        answered=slots.answered + signals.answered,
        late=slots.late + signals.late,
    )
    if now - since < max(_SEEN_SECONDS_LEAST, settings.value / 1000):
        return slots
    proven = slots.proven * _FADE
    if slots.answered and slots.late <= settings.late_share * slots.answered:
        proven = max(proven, slots.least)
    return replace(slots, proven=proven, since=now, least=each, answered=0, late=0)
