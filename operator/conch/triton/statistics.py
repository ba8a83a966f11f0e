"""What Triton has counted of a loaded version, as its statistics extension tells it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatistics:
    """All executions of one batch size, ever.

    The backend reports each execution once, however many requests are in it, with the time that the whole batch took:
    `compute_input` gathers the requests' inputs, `compute_infer` is the model itself, `compute_output` makes the
    answers. Each is a sum over the executions, in nanoseconds, and each carries their number. The sums of the same
    names in the statistics of requests are another thing: there every request of a batch adds the whole batch's time.
    An execution that fails is counted like any other. (Triton's core, infer_stats.cc, and what
    tests/contract/test_agent_statistics.py sees.)
    """

    size: int
    """Items in the batch: the sum of the requests' own batch sizes. 1 where a model takes no batches."""
    executions: int
    nanoseconds: int
    """Input, inference and output of all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What Triton has counted of a version since it was loaded; a change of its instances alone counts on."""

    successes: int
    failures: int
    queue_nanoseconds: int
    """Of all successful requests together, before they were executed."""
    batches: tuple[BatchStatistics, ...] = ()
    """Empty for an ensemble, which executes nothing itself."""


def statistics_of(told: Any) -> Statistics:
    """Of a service_pb2.ModelStatistics."""
    counted = told.inference_stats
    return Statistics(
        successes=counted.success.count,
        failures=counted.fail.count,
        queue_nanoseconds=counted.queue.ns,
        batches=tuple(_batches(told.batch_stats)),
    )


def _batches(rows: Iterable[Any]) -> Iterable[BatchStatistics]:
    for row in rows:
        nanoseconds = row.compute_input.ns + row.compute_infer.ns + row.compute_output.ns
        yield BatchStatistics(size=max(1, row.batch_size), executions=row.compute_infer.count, nanoseconds=nanoseconds)
