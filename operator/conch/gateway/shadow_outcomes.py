"""What comes of a copy at one server, and what of the answers of two. Imports nothing that takes memory."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """With success."""

    body: bytes
    headers: Mapping[str, str]
    """Of HTTP."""
    milliseconds: float
    """Until the answer was whole, by a connection of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """With an error, or not at all."""

    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TooLarge:
    """With more than is compared."""


Outcome = Answered | Failed | TooLarge


@dataclass(frozen=True, slots=True, kw_only=True)
class Same:
    """Within what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Differs:
    """In what, in words that show nothing of the answers themselves."""

    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """The stable revision's answer, so that there is nothing to compare with."""
