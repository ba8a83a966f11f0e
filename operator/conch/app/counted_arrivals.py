"""How many requests came between two looks, by counters that are reported in rhythms of their own.

Between two looks there are one, two or three reports of a gateway that is asked every second, and now and then none of
an agent. Counted as they come, a steady load would swing by half. So what came is taken to be what each source's rate,
from one report to the next, makes of the time since the last look.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

Source = tuple[str, str]
"""Who counts, and which life of it."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A source's counter of arrivals, as it was last reported."""

    total: int
    at: float
    per_second: float | None = None
    """Since the report before; None: there was none."""


@dataclass(slots=True)
class CountedArrivals:
    """The counters of one object's sources, as they were last read. One that is new has nothing to tell yet."""

    sources: dict[Source, Counted] = field(default_factory=dict)
    left_over: float = 0.0
    """Parts of requests that earlier looks have not told, or told too many."""

    def last_of(self, source: Source) -> Counted | None:
        """What a source told last."""
        return self.sources.get(source)

    def forget_all_but(self, alive: Set[Source]) -> None:
        """Of these none will tell again."""
        for source in self.sources.keys() - alive:
            del self.sources[source]

    def since_last_look(
        self, totals: Mapping[Source, tuple[int, float]], elapsed: float | None
    ) -> tuple[int | None, bool]:
        """What came since the last look, None if nobody can tell; and whether all could."""
        rates: list[float] = []
        has_grown = False
        for source, (total, told_at) in totals.items():
            before = self.sources.get(source)
            if before is None:
                # It may have counted for long.
                self.sources[source] = Counted(total, told_at)
                continue
            counted = before
            if told_at > before.at:
                grown = max(0, total - before.total)
                has_grown = has_grown or grown > 0
                counted = Counted(max(total, before.total), told_at, grown / (told_at - before.at))
                self.sources[source] = counted
            if counted.per_second is not None:
                rates.append(counted.per_second)
        all_known = len(rates) == len(totals)
        if elapsed is None:
            return (0 if totals else None), False
        if not rates:
            return None, False
        exact = sum(rates) * elapsed + self.left_over
        # However short the time since the last look: that somebody asked at all must not get lost.
        whole = max(int(exact), 1 if has_grown else 0)
        self.left_over = max(-1.0, exact - whole)
        return whole, all_known
