"""Tables of what was found, beside the design's figures and the references of the same run."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rich.table import Table

from tests.perf.packaging.comparison import Comparison, Load
from tests.perf.packaging.design import DESIGN, DEVIATION_GOAL
from tests.perf.packaging.samples import Packaged
from tests.perf.packaging.services import TRITON

_EXPORT: Final = "export"
_SLOWER_MOST: Final = 1.25
"""An export that takes longer than this times the design's is told as missed."""


def samples_table(packaged: Sequence[Packaged]) -> Table:
    """The first version of each, in fp32; (in brackets) is the design's."""
    drawn = _table(
        "The samples in fp32 (the design's)",
        "train s",
        "package s",
        "of it export",
        "kB",
        "score",
        "deviation",
        "1 sample us",
        "32 us",
    )
    for each in packaged:
        if each.version != 1:
            continue
        first, design = each.variants[0], DESIGN[each.name]
        drawn.add_row(
            each.name,
            "" if each.training_seconds is None else f"{each.training_seconds:.1f}",
            f"{each.package_seconds:.1f}",
            f"{each.stages[_EXPORT]:.1f} ({design.export_seconds:.1f})",
            f"{first['bytes'] / 1000:,.1f} ({design.kilobytes:,.0f})",
            f"{_score(first):.3f} ({design.score:.3f})",
            f"{each.told['parity']['largest']:.1e} ({design.deviation:.1e})",
            f"{first['oneSampleMicroseconds']:,.0f}",
            f"{first['fullBatchMicroseconds']:,.0f}",
        )
    return drawn


def variants_table(packaged: Sequence[Packaged]) -> Table:
    """What each optimisation gained: `x` is the time of fp32 over its own; (in brackets) is the design's."""
    drawn = _table(
        "Optimised (the design's)", "kB", "score", "1 sample us", "x fp32", "32 us", "x fp32", "alone or not", "kept"
    )
    for each in packaged:
        if each.version == 1:
            continue
        first = each.variants[0]
        for variant in each.variants:
            design = DESIGN[each.name].variants.get(variant["name"])
            one, batch = _speeds(first, variant)
            deviation = variant["batchDeviation"]
            drawn.add_row(
                f"{each.name} {variant['name']}",
                f"{variant['bytes'] / 1000:,.0f}" + (f" ({design.kilobytes:,.0f})" if design else ""),
                f"{_score(variant):.3f}" + (f" ({design.score:.3f})" if design else ""),
                f"{variant['oneSampleMicroseconds']:,.0f}",
                f"{one:.2f}" + (f" ({design.speed_of_one:.2f})" if design else ""),
                f"{variant['fullBatchMicroseconds']:,.0f}",
                f"{batch:.2f}" + (f" ({design.speed_of_batch:.2f})" if design else ""),
                "" if deviation is None else f"{deviation:.1e}",
                "yes" if each.told["kept"]["name"] == variant["name"] else "no",
            )
    return drawn


def services_table(comparison: Comparison) -> Table:
    """Latencies, and answers per second; the ratio is Triton's to the better one of both Flasks."""
    names = list(next(iter(comparison.found.values())))
    drawn = Table(title="A text in, its label and score out", title_justify="left")
    drawn.add_column("")
    for column in (*names, "Triton / Flask"):
        drawn.add_column(column, justify="right")
    for load in comparison.loads:
        for figure, words in _figures(load):
            values = {name: comparison.median(load, name, figure) for name in names}
            drawn.add_row(
                f"{load.says}, {words}",
                *(f"{value:,.1f}" for value in values.values()),
                f"{values[TRITON] / comparison.best(load, figure)[1]:.2f}",
            )
        cores = [comparison.median(load, name, "generator_cores") for name in names]
        drawn.add_row(f"{load.says}, cores that the load itself took", *(f"{each:.2f}" for each in cores), "")
        failed = [sum(each.failed for each in comparison.found[load.says][name]) for name in names]
        if any(failed):
            drawn.add_row(f"{load.says}, failed in all rounds", *map(str, failed), "")
    return drawn


def missed(packaged: Sequence[Packaged], comparison: Comparison | None) -> Iterator[str]:
    """What is worse than asked for, than in the design, or than Flask."""
    for each in packaged:
        deviation = each.told["parity"]["largest"]
        if deviation > DEVIATION_GOAL:
            yield f"{each.name}: {deviation:.1e} off torch (goal {DEVIATION_GOAL:.0e})"
        design = DESIGN[each.name]
        if each.version == 1 and each.stages[_EXPORT] > _SLOWER_MOST * design.export_seconds:
            yield f"{each.name}: export {each.stages[_EXPORT]:.1f} s (design {design.export_seconds:.1f})"
        if each.version > 1 and each.told["kept"]["name"] == each.variants[0]["name"]:
            yield f"{each.name}: no optimisation was kept: {each.told['notKept']}"
    if comparison is None:
        return
    for load in comparison.loads:
        for figure, words in _figures(load):
            ours, (reference, theirs) = comparison.median(load, TRITON, figure), comparison.best(load, figure)
            if ours < theirs if figure == "per_second" else ours > theirs:
                yield f"{load.says}, {words}: Triton {ours:,.1f}, {reference} {theirs:,.1f}"


def as_json(packaged: Sequence[Packaged], comparison: Comparison | None) -> dict[str, Any]:
    """Everything."""
    samples = [
        {
            "name": each.name,
            "version": each.version,
            "trainingSeconds": each.training_seconds,
            "packageSeconds": each.package_seconds,
            "stages": dict(each.stages),
            "told": dict(each.told),
        }
        for each in packaged
    ]
    services = (
        None
        if comparison is None
        else {
            load: {name: [found.model_dump() for found in rounds] for name, rounds in by_service.items()}
            for load, by_service in comparison.found.items()
        }
    )
    return {"samples": samples, "services": services}


def _figures(load: Load) -> Iterator[tuple[str, str]]:
    if load.clients > 1:
        yield "per_second", "answers/s"
    yield "p50_ms", "p50 ms"
    yield "p95_ms", "p95 ms"
    if load.rate_per_second:
        yield "per_second", "answers/s"


def _speeds(first: Mapping[str, Any], variant: Mapping[str, Any]) -> tuple[float, float]:
    one, batch = (
        float(first[name]) / float(variant[name]) for name in ("oneSampleMicroseconds", "fullBatchMicroseconds")
    )
    return one, batch


def _score(variant: Mapping[str, Any]) -> float:
    return float(variant["score"]["value"])


def _table(title: str, *columns: str) -> Table:
    drawn = Table(title=title, title_justify="left")
    drawn.add_column("")
    for column in columns:
        drawn.add_column(column, justify="right")
    return drawn
