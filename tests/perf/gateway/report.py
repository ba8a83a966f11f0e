"""What a run found: each figure beside its reference and its goal."""

from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from tests.cluster.progress import say


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure; with a reference the goal is for their ratio, without one for the figure itself."""

    says: str
    measured: float
    reference: float | None = None
    goal: float | None = None

    @property
    def ratio(self) -> float | None:
        """To the reference."""
        return self.measured / self.reference if self.reference else None

    @property
    def is_met(self) -> bool:
        """Whether it is within its goal; true without one."""
        return self.goal is None or (self.measured if self.ratio is None else self.ratio) <= self.goal


@dataclass(slots=True)
class Results:
    """Rows in the order in which they were found, and what is behind them."""

    rows: list[Row] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)

    def add(self, says: str, measured: float, *, reference: float | None = None, goal: float | None = None) -> None:
        """Add a row, and say it at once."""
        row = Row(says=says, measured=measured, reference=reference, goal=goal)
        self.rows.append(row)
        ratio = "" if row.ratio is None else f", {row.ratio:.3f} x the reference"
        say(f"  {says}: {_number(measured)}{ratio}{'' if row.is_met else ' (goal missed)'}")

    def as_json(self) -> dict[str, Any]:
        """Everything."""
        rows = [
            {
                "says": row.says,
                "measured": row.measured,
                "reference": row.reference,
                "ratio": row.ratio,
                "goal": row.goal,
                "met": row.is_met,
            }
            for row in self.rows
        ]
        return {"rows": rows, "raw": self.raw}


def table(results: Results) -> Table:
    """For a person."""
    drawn = Table(title="The gateway; the reference is Envoy alone", title_justify="left")
    drawn.add_column("")
    for column in ("gateway", "reference", "ratio", "goal"):
        drawn.add_column(column, justify="right")
    for row in results.rows:
        goal = "" if row.goal is None else f"<= {row.goal:g}: {'met' if row.is_met else '[red]missed[/]'}"
        drawn.add_row(
            row.says,
            _number(row.measured),
            "" if row.reference is None else _number(row.reference),
            "" if row.ratio is None else f"{row.ratio:.3f}",
            goal,
        )
    return drawn


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.3f}"
