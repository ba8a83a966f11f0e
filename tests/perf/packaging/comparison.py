"""Loads on each service in turn, so that all of them meet the same machine; medians of the rounds count."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.cluster.progress import step
from tests.perf.packaging.load import WARM_SECONDS, Found, Service, Wish, measure
from tests.perf.packaging.services import REFERENCES, TRITON

CLIENTS: Final = 16
SHARES: Final = (0.5, 0.8)
_OVERHEAD_SECONDS: Final = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is asked of each service."""

    says: str
    clients: int = 0
    rate_per_second: float = 0.0


@dataclass(slots=True)
class Comparison:
    """By load and service, the rounds."""

    loads: list[Load] = field(default_factory=list)
    found: dict[str, dict[str, list[Found]]] = field(default_factory=dict)

    def median(self, load: Load, service: str, figure: str) -> float:
        """Of the rounds."""
        return statistics.median(float(getattr(each, figure)) for each in self.found[load.says][service])

    def best(self, load: Load, figure: str) -> tuple[str, float]:
        """Of the references: which one, and its figure."""
        better = max if figure == "per_second" else min
        return better(
            ((name, self.median(load, name, figure)) for name in REFERENCES if name in self.found[load.says]),
            key=lambda each: each[1],
        )


def compare(services: Mapping[str, Service], texts: Sequence[str], *, rounds: int, seconds: float) -> Comparison:
    """One client, sixteen clients, then open loops at shares of what the sixteen had."""
    comparison = Comparison()
    one, many = Load(says="1 client", clients=1), Load(says=f"{CLIENTS} clients", clients=CLIENTS)
    for load in (one, many):
        _measure(comparison, load, services, texts, rounds=rounds, seconds=seconds)
    whole = {"Flask": comparison.best(many, "per_second")[1], "Triton": comparison.median(many, TRITON, "per_second")}
    for who, per_second in sorted(whole.items(), key=lambda each: each[1]):
        for share in SHARES:
            rate = round(share * per_second, 1)
            load = Load(says=f"{rate:.0f}/s: {share:.0%} of {who}'s throughput", rate_per_second=rate)
            _measure(comparison, load, services, texts, rounds=rounds, seconds=seconds)
    return comparison


def _measure(
    comparison: Comparison,
    load: Load,
    services: Mapping[str, Service],
    texts: Sequence[str],
    *,
    rounds: int,
    seconds: float,
) -> None:
    comparison.loads.append(load)
    found = comparison.found.setdefault(load.says, {name: [] for name in services})
    expected = rounds * len(services) * (seconds + WARM_SECONDS + _OVERHEAD_SECONDS)
    with step(load.says, expected_seconds=expected):
        for number, name in _turns(list(services), rounds):
            wish = Wish(
                service=services[name],
                texts=tuple(texts),
                seconds=seconds,
                clients=load.clients,
                rate_per_second=load.rate_per_second,
                seed=number,
            )
            found[name].append(measure(wish))


def _turns(names: list[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Each goes first as often as the others."""
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            yield number, name
