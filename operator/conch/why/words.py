"""Texts, times and sizes of the report, for people."""

from datetime import UTC, datetime

from rich.text import Text


def one_line(text: str) -> str:
    """Without line breaks or control characters: events and messages hold what others wrote, also for the terminal."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())


def plain(text: str, style: str = "") -> Text:
    """Such a line in one style."""
    return Text(one_line(text), style=style)


def ago(stamp: str, now: datetime) -> str:
    """How long that is ago, such as 90s, 5m or 3h; nothing is shorter than 0s."""
    seconds = max(0, int((now.astimezone(UTC) - datetime.fromisoformat(stamp)).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def size(count: int) -> str:
    """Bytes, such as 3.1 GB."""
    left = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if left < 1000:
            return f"{left:.0f} {unit}" if unit == "B" else f"{left:.1f} {unit}"
        left /= 1000
    return f"{left:.1f} TB"


def figure(value: float) -> str:
    """Three digits, and no powers of ten: 0.25, 41.2, 1,230."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
