"""How often the analysis of a rollout is wrong, and how soon it is right: many rollouts, each looked at every second.

Simulated, with a seed: no figure depends on the machine. tests/sim/test_analysis_power.py is the same, but smaller.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from numpy.typing import NDArray

from conch.api.analysis import Check, Latency, QueueTime, SuccessRate
from conch.api.gateway_report import LATENCY_BOUNDS_MILLISECONDS
from conch.core.analysis.alpha import alpha_of_each
from conch.core.analysis.judge import judge
from conch.core.analysis.judgement import Verdict
from conch.core.analysis.samples import Samples

SEED: Final = 20_260_101
_MEDIAN_MILLISECONDS: Final = 43.0
"""Of the stable revision; no bound of a bucket, nor any multiple of one."""
_ROLLOUTS_AT_ONCE: Final = 500

Looks = Iterator[tuple[Samples, Samples]]
"""Candidate and stable, each second a little more of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A check, and how the two revisions are in truth."""

    check: Check
    requests_per_second: float = 10
    """To the candidate, at random times."""
    stable_times: float = 9
    """So many times more go to the stable revision."""
    seconds: int = 120
    failing: float = 0.0
    """The share of the candidate's requests."""
    slower: float = 1.0
    """The candidate's latencies by the stable revision's."""
    spread: float = 0.5
    """Standard deviation of the latencies' logarithms; they are log-normal."""
    load: float = 0.5
    """Of the candidate's one server, in an M/M/1 queue."""
    steps: int = 3
    """Of the rollout; each may be wrong with its share of the chance, and so may the time with all of the traffic."""
    checks: int = 2
    """Of the rollout, this one among them."""

    def looks(self, rollouts: int, rng: np.random.Generator) -> Iterator[Looks]:
        """What is seen of so many rollouts."""
        for first in range(0, rollouts, _ROLLOUTS_AT_ONCE):
            number = min(_ROLLOUTS_AT_ONCE, rollouts - first)
            yield from self._queued(number, rng) if self.check.queue_time else self._answered(number, rng)

    def _answered(self, rollouts: int, rng: np.random.Generator) -> Iterator[Looks]:
        requests = rng.poisson(self.requests_per_second, (rollouts, self.seconds))
        failures = np.cumsum(rng.binomial(requests, self.failing), axis=1)
        of_stable = rng.poisson(self.requests_per_second * self.stable_times, (rollouts, self.seconds))
        own = np.cumsum(rng.multinomial(requests, self._buckets(self.slower)), axis=1)
        others = np.cumsum(rng.multinomial(of_stable, self._buckets(1)), axis=1)
        totals = np.cumsum(requests, axis=1)
        for rollout in range(rollouts):
            yield (
                (
                    Samples(
                        requests=int(totals[rollout, second]),
                        failures=int(failures[rollout, second]),
                        latency=tuple(own[rollout, second].tolist()),
                    ),
                    Samples(latency=tuple(others[rollout, second].tolist())),
                )
                for second in range(self.seconds)
            )

    def _buckets(self, slower: float) -> NDArray[np.float64]:
        """The chance of each bucket."""
        logarithms = np.log(np.array(LATENCY_BOUNDS_MILLISECONDS) / (slower * _MEDIAN_MILLISECONDS))
        up_to = [0.5 * (1 + math.erf(each / self.spread / math.sqrt(2))) for each in logarithms]
        return np.diff([0.0, *up_to, 1.0])

    def _queued(self, rollouts: int, rng: np.random.Generator) -> Iterator[Looks]:
        """By Lindley's recursion, from a queue that has been as it is for long."""
        work = self.load / self.requests_per_second
        wait = np.where(rng.random(rollouts) < self.load, rng.exponential(work / (1 - self.load), rollouts), 0.0)
        seconds, each_look = np.zeros(rollouts), round(self.requests_per_second)
        totals = []
        for request in range(1, self.seconds * each_look + 1):
            seconds += wait
            gap = rng.exponential(1 / self.requests_per_second, rollouts)
            wait = np.maximum(0.0, wait + rng.exponential(work, rollouts) - gap)
            if request % each_look == 0:
                totals.append((request, seconds.copy()))
        for rollout in range(rollouts):
            yield (
                (Samples(requests=n, queued_requests=n, queue_seconds=float(total[rollout])), Samples())
                for n, total in totals
            )

    @property
    def mean_wait_milliseconds(self) -> float:
        """In the queue of the candidate, in the long run."""
        return 1000 * self.load / self.requests_per_second * self.load / (1 - self.load)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Of many rollouts of one scene."""

    failed: float
    """The share that was found to FAIL at any look, be it after a PASS."""
    passed: float
    """The share whose first verdict was PASS."""
    undecided: float
    median_samples: int | None
    """Of the candidate until the first verdict; None if most had none."""
    median_seconds: int | None


def simulate(scene: Scene, rollouts: int) -> Outcome:
    """Look at each every second until it fails, or time is over."""
    rng = np.random.default_rng(SEED)
    failed = passed = 0
    decided: list[tuple[float, float]] = []
    alpha = alpha_of_each(windows=scene.steps + 1, checks=scene.checks)
    for looks in scene.looks(rollouts, rng):
        first: Verdict | None = None
        for second, (candidate, stable) in enumerate(looks, 1):
            found = judge(scene.check, candidate, stable, alpha=alpha)
            if first is None and found.verdict in (Verdict.FAIL, Verdict.PASS):
                first = found.verdict
                decided.append((found.samples, second))
            if found.verdict is Verdict.FAIL:
                failed += 1
                break
        passed += first is Verdict.PASS
    undecided = [(math.inf, math.inf)] * (rollouts - len(decided))
    samples, seconds = ([each[place] for each in (*decided, *undecided)] for place in (0, 1))
    return Outcome(
        failed=failed / rollouts,
        passed=passed / rollouts,
        undecided=len(undecided) / rollouts,
        median_samples=_median(samples),
        median_seconds=_median(seconds),
    )


def _median(values: Sequence[float]) -> int | None:
    middle = sorted(values)[len(values) // 2]
    return None if math.isinf(middle) else int(middle)


SUCCESS: Final = Check(success_rate=SuccessRate(minimum_percent=99))
P95_RATIO: Final = Check(latency=Latency(percentile=95, max_ratio_to_stable=1.5))
P95_ABSOLUTE: Final = Check(latency=Latency(percentile=95, max_milliseconds=160))
_QUEUE: Final = Check(queue_time=QueueTime(max_milliseconds=50))


def scenes(requests_per_second: float) -> dict[str, Scene]:
    """What is simulated, by what it is; the first word says what should become of it."""
    rate: dict[str, Any] = {"requests_per_second": requests_per_second}
    queue = {"check": _QUEUE, **rate}
    return {
        "good: 0.1 % fail, 1 % may": Scene(check=SUCCESS, failing=0.001, **rate),
        "good: 1 % fail, 1 % may": Scene(check=SUCCESS, failing=0.01, **rate),
        "bad: 5 % fail, 1 % may": Scene(check=SUCCESS, failing=0.05, **rate),
        "bad: all fail": Scene(check=SUCCESS, failing=1.0, **rate),
        "good: p95 98 ms, 160 ms at most": Scene(check=P95_ABSOLUTE, **rate),
        "bad: p95 196 ms, 160 ms at most": Scene(check=P95_ABSOLUTE, slower=2, **rate),
        "good: as slow as stable, ratio 1.5": Scene(check=P95_RATIO, **rate),
        "good: 1.5 x slower, ratio 1.5": Scene(check=P95_RATIO, slower=1.5, **rate),
        "bad: 2 x slower, ratio 1.5": Scene(check=P95_RATIO, slower=2, **rate),
        "bad: 3 x slower, ratio 1.5": Scene(check=P95_RATIO, slower=3, **rate),
        "good: mean wait at a third of the limit": Scene(load=_load(1 / 3, requests_per_second), **queue),
        "good: mean wait at the limit": Scene(load=_load(1, requests_per_second), **queue),
        "bad: mean wait 3 x the limit": Scene(load=_load(3, requests_per_second), **queue),
    }


def _load(times_the_limit: float, requests_per_second: float) -> float:
    """The load at which an M/M/1 queue has this mean wait: m = r / rate * r / (1 - r), solved for r."""
    assert _QUEUE.queue_time
    mean = times_the_limit * _QUEUE.queue_time.max_milliseconds / 1000 * requests_per_second
    return (math.sqrt(mean * mean + 4 * mean) - mean) / 2


def main(
    rollouts: Annotated[int, typer.Option(help="Of each scene and traffic level.")] = 10_000,
    requests_per_second: Annotated[
        list[float] | None, typer.Option(help="To the candidate; the stable revision gets nine times as many.")
    ] = None,
) -> None:
    """Print, for each scene and traffic level, what became of the rollouts within two minutes.

    Example: python -m tests.perf.analysis_power --rollouts 1000 --requests-per-second 10
    """
    table = {}
    for rate in requests_per_second or (2.0, 10.0, 50.0):
        typer.echo(f"\n{rate:g} requests per second to the candidate, {rollouts} rollouts each")
        typer.echo(f"{'':42}{'failed':>9}{'passed':>9}{'undecided':>11}{'samples':>9}{'seconds':>9}")
        for name, scene in scenes(rate).items():
            found = simulate(scene, rollouts)
            table[f"{rate:g}/s, {name}"] = asdict(found)
            shares = f"{found.failed:>9.2%}{found.passed:>9.2%}{found.undecided:>11.2%}"
            typer.echo(f"{name:42}{shares}{_or_dash(found.median_samples):>9}{_or_dash(found.median_seconds):>9}")
    out = Path(".cluster/analysis_power.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(table, indent=2))


def _or_dash(number: int | None) -> str:
    return "-" if number is None else str(number)


if __name__ == "__main__":
    typer.run(main)
