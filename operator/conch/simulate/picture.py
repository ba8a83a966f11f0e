"""A replay as a picture: the load, the replicas that followed it, and the requests that were late."""

import html
import importlib.util
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from conch.client.errors import ClientError
from conch.simulate.outcome import Outcome
from conch.simulate.trace import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES: Final = (".png", ".html")
_DOTS_PER_INCH: Final = 120
_OVERSHOOT_SHOWN: Final = 2.5
"""By the most replicas of the first outcome."""
_BINS_MOST: Final = 400
_NICE_SECONDS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400)
# Of Okabe and Ito's palette, told apart by colour-blind people too (jfly.uni-koeln.de/color).
_LOAD: Final = "#555555"
_COLOURS: Final = ("#0072B2", "#E69F00", "#CC79A7", "#009E73", "#56B4E9", "#D55E00")
_HOUR: Final = 3600.0
_MINUTE: Final = 60.0


def check(path: Path) -> None:
    """Whether a picture can be drawn there; to be asked before a long replay. Raises ClientError."""
    if path.suffix.lower() not in SUFFIXES:
        raise ClientError(f"--output {path}: a picture is a file that ends in {' or '.join(SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise ClientError(f"--output {path}: there is no folder {path.parent}")
    if importlib.util.find_spec("matplotlib") is None:
        raise ClientError("--output needs matplotlib, which is not here: pip install 'conch[simulate]'")


def draw(trace: Trace, outcomes: Sequence[Outcome], path: Path, *, summary: str) -> None:
    """Write it as PNG, or as HTML that needs no other file. `summary` is the table as text. Raises ClientError."""
    drawn = figure(trace, outcomes)
    try:
        if path.suffix.lower() == ".png":
            drawn.savefig(path, format="png", dpi=_DOTS_PER_INCH)
        else:
            path.write_text(page(trace, drawn, summary), encoding="utf-8")
    except OSError as error:
        raise ClientError(f"the picture cannot be written to {path}: {error}") from error


def figure(trace: Trace, outcomes: Sequence[Outcome]) -> "Figure":
    """Three panels below each other with the same time axis; the first outcome is drawn thickest."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(10, 8), layout="constrained")
    # No display, and no window system's backend, whatever the environment says.
    FigureCanvasAgg(drawn)
    load, replicas, late = drawn.subplots(3, 1, sharex=True)
    unit, word = (_HOUR, "hours") if trace.span_seconds > 3 * _HOUR else (_MINUTE, "minutes")
    edges = bins(trace.span_seconds)
    _load(load, trace, edges, unit)
    for number, outcome in reversed(list(enumerate(outcomes))):
        colour = _COLOURS[number % len(_COLOURS)]
        _replicas(replicas, outcome, unit, colour, first=number == 0)
        _late(late, outcome, edges, unit, colour, first=number == 0)
    for axes, words in ((load, "requests/s"), (replicas, "replicas"), (late, f"late per {edges[1] - edges[0]:g} s")):
        axes.set_ylabel(words)
        axes.set_ylim(bottom=0)
    # What overshoots is cut off: else nothing could be seen of the rest.
    replicas.set_ylim(top=1.1 * min(max(each.peak for each in outcomes), _OVERSHOOT_SHOWN * max(1, outcomes[0].peak)))
    # Below the panels, where it hides nothing.
    drawn.legend(
        *replicas.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, reverse=True
    )
    late.set_xlim(0, max(trace.span_seconds, 1.0) / unit)
    late.set_xlabel(word)
    drawn.suptitle(f"{trace.name}: {trace.requests:,} requests")
    return drawn


def bins(span_seconds: float) -> NDArray[np.float64]:
    """Edges of equal spans of time, of a length that is easily read, over the whole trace."""
    width = next((nice for nice in _NICE_SECONDS if span_seconds <= nice * _BINS_MOST), _NICE_SECONDS[-1])
    return np.arange(int(span_seconds // width) + 2, dtype=np.float64) * width


def _load(axes: "Axes", trace: Trace, edges: NDArray[np.float64], unit: float) -> None:
    counts, _ = np.histogram(trace.seconds, edges)
    axes.stairs(counts / (edges[1] - edges[0]), edges / unit, color=_LOAD, fill=True)


def _replicas(axes: "Axes", outcome: Outcome, unit: float, colour: str, *, first: bool) -> None:
    at = [moment.now / unit for moment in outcome.moments]
    label = f"{outcome.rule}: {100 * outcome.late_share:.1f} % late, {outcome.replica_hours:.1f} h"
    placed = [moment.placed for moment in outcome.moments]
    axes.step(at, placed, where="post", color=colour, linewidth=1.8 if first else 0.9, label=label)
    if first:
        ready = [moment.ready for moment in outcome.moments]
        axes.fill_between(at, ready, step="post", color=colour, alpha=0.2, linewidth=0)


def _late(axes: "Axes", outcome: Outcome, edges: NDArray[np.float64], unit: float, colour: str, *, first: bool) -> None:
    counts, _ = np.histogram(outcome.arrivals[outcome.late], edges)
    axes.stairs(counts, edges / unit, color=colour, fill=first, linewidth=0.9, alpha=0.8)


def page(trace: Trace, drawn: "Figure", summary: str) -> str:
    """One page with everything in it."""
    into = StringIO()
    drawn.savefig(into, format="svg", metadata={"Date": None})
    svg = into.getvalue()
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>conch simulate: {html.escape(trace.name)}</title>\n"
        "<style>body{font-family:sans-serif;max-width:1100px;margin:2em auto;padding:0 1em}"
        "pre{overflow-x:auto}svg{width:100%;height:auto}</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(trace.name)}</h1>\n<pre>{html.escape(summary)}</pre>\n"
        # Without its XML declaration and DTD it is part of the page.
        f"{svg[svg.index('<svg') :]}\n</body>\n</html>\n"
    )
