"""A recorded run as a picture: who got the requests, and how they fared."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.demo.colours import FAILED, NEUTRAL, of_version
from tests.demo.recording import ALL_PERCENT, Event, Recording
from tests.load import Result, Span

_DOTS_PER_INCH: Final = 120
_LABEL_ROWS: Final = 3
"""Events may follow each other closely: their labels stand above each other in turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The part of time that is shown; seconds in the picture count from its beginning, that of the load."""

    began: datetime
    seconds: float

    def position(self, at: datetime) -> float:
        """Where a time is, in seconds."""
        return (at - self.began).total_seconds()


def draw(recording: Recording, result: Result, path: Path) -> None:
    """Write the picture as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure(recording, result).savefig(path, dpi=_DOTS_PER_INCH)


def figure(recording: Recording, result: Result) -> Figure:
    """Two panels below each other with the same time axis."""
    window = Window(began=datetime.fromisoformat(result.began_at), seconds=result.seconds)
    drawn = Figure(figsize=(10, 6), layout="constrained")
    # No display, and no window system's backend, whatever the environment says.
    FigureCanvasAgg(drawn)
    upper, lower = drawn.subplots(2, 1, sharex=True)
    _weights(upper, recording, window)
    _load(lower, result.timeline)
    _events((upper, lower), recording.events, window)
    lower.set_xlim(0, window.seconds)
    lower.set_xlabel("seconds")
    return drawn


def _weights(axes: Axes, recording: Recording, window: Window) -> None:
    at = [window.position(sample.at) for sample in recording.samples]
    versions = recording.versions
    shares = [[sample.weights.get(version, 0) for sample in recording.samples] for version in versions]
    if versions:
        # Stepwise: between two looks the gateways did as they had been told before.
        axes.stackplot(
            at,
            shares,
            step="post",
            labels=[f"version {version}" for version in versions],
            colors=[of_version(version) for version in versions],
        )
        axes.legend(loc="center left", framealpha=0.9)
    axes.set_ylim(0, ALL_PERCENT)
    axes.set_ylabel("requests by version, %")


def _load(axes: Axes, timeline: Sequence[Span]) -> None:
    begin = [each.begin_seconds for each in timeline]
    answering = [each for each in timeline if each.answered]
    middle = [each.begin_seconds + each.seconds / 2 for each in answering]
    failed = axes.bar(
        begin, [each.failed for each in timeline], width=1.0, align="edge", color=FAILED, label="failed per second"
    )
    axes.set_ylim(0, max(5, *(1.2 * each.failed for each in timeline)) if timeline else 5)
    axes.set_ylabel("failed requests per second", color=FAILED)
    latency = axes.twinx()
    latency.set_ylabel("latency, ms")
    lines = [
        *latency.plot(middle, [each.p50_ms for each in answering], color=NEUTRAL, label="p50"),
        *latency.plot(middle, [each.p95_ms for each in answering], color=NEUTRAL, linestyle=":", label="p95"),
    ]
    latency.set_ylim(bottom=0)
    # Above the panel, where it hides nothing.
    latency.legend(handles=[failed, *lines], loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)


def _events(panels: Sequence[Axes], events: Sequence[Event], window: Window) -> None:
    # A label far outside, of a clock that was set meanwhile, would leave the panels no room.
    positions = [(window.position(event.at), event.words) for event in events]
    inside = [(at, words) for at, words in positions if 0 <= at <= window.seconds]
    for number, (at, words) in enumerate(inside):
        for axes in panels:
            axes.axvline(at, color="black", linestyle="--", linewidth=1)
        rightmost = at > 0.8 * window.seconds
        panels[0].annotate(
            words,
            xy=(at, 1),
            xycoords=("data", "axes fraction"),
            xytext=(-3 if rightmost else 3, 4 + 13 * (number % _LABEL_ROWS)),
            textcoords="offset points",
            horizontalalignment="right" if rightmost else "left",
            fontsize=9,
        )
