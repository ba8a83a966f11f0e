"""When the requests of a stream go: seconds from the beginning."""

import random
from collections.abc import Iterator

from tests.load.plan import Plan, Stream


def schedule(stream: Stream, *, duration_seconds: float, seed: int) -> Iterator[float]:
    """Times below the duration, ascending; the same seed gives the same times."""
    if not stream.poisson:
        count = 0
        while (at := count / stream.rate_per_second) < duration_seconds:
            yield at
            count += 1
        return
    dice = random.Random(seed)
    at = dice.expovariate(stream.rate_per_second)
    while at < duration_seconds:
        yield at
        at += dice.expovariate(stream.rate_per_second)


def schedules(plan: Plan) -> list[list[float]]:
    """Those of every stream. Raises ValueError when they are more than the plan allows."""
    every = [
        list(schedule(stream, duration_seconds=plan.duration_seconds, seed=plan.seed + number))
        for number, stream in enumerate(plan.streams)
    ]
    if (count := sum(map(len, every))) > plan.requests_most:
        raise ValueError(f"the plan has {count} requests, more than its own bound of {plan.requests_most}")
    return every
