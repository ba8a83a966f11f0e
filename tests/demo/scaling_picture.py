"""A recorded run of the autoscaler as a picture: the load, and the servers that follow it."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.demo.colours import NEUTRAL, of_version
from tests.demo.scaling_view import Sample
from tests.load import Result

_DOTS_PER_INCH: Final = 120


def draw(samples: Sequence[Sample], results: Sequence[Result], path: Path) -> None:
    """Write the picture as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure(samples, results).savefig(path, dpi=_DOTS_PER_INCH)


def figure(samples: Sequence[Sample], results: Sequence[Result]) -> Figure:
    """Answers per second above, servers below; seconds count from the first look."""
    began = samples[0].at
    drawn = Figure(figsize=(10, 5), layout="constrained")
    # No display, and no window system's backend, whatever the environment says.
    FigureCanvasAgg(drawn)
    upper, lower = drawn.subplots(2, 1, sharex=True)
    answered = answers_by_second(results, began)
    upper.bar(list(answered), list(answered.values()), width=1.0, align="edge", color=of_version(1))
    upper.set_ylabel("answers per second")
    at = [(sample.at - began).total_seconds() for sample in samples]
    lower.step(
        at, [sample.wanted for sample in samples], where="post", color=NEUTRAL, linestyle="--", label="servers wanted"
    )
    lower.fill_between(
        at, [sample.ready for sample in samples], step="post", color=of_version(2), label="servers ready"
    )
    lower.set_ylim(bottom=0)
    lower.yaxis.get_major_locator().set_params(integer=True)
    lower.set_ylabel("servers")
    lower.set_xlabel("seconds")
    lower.legend(loc="upper left", framealpha=0.9)
    lower.set_xlim(0, at[-1])
    return drawn


def answers_by_second(results: Sequence[Result], began: datetime) -> dict[float, int]:
    """Of all loads together, by the second since `began`."""
    answered: dict[float, int] = {}
    for result in results:
        offset = (datetime.fromisoformat(result.began_at) - began).total_seconds()
        for span in result.timeline:
            second = float(round(offset + span.begin_seconds))
            answered[second] = answered.get(second, 0) + span.answered
    return answered
