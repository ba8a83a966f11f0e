"""How the long stages tell how far they are."""

from typing import Protocol


class Progress(Protocol):
    """Told at the start of every stage and, where a stage counts, on its way."""

    def stage(self, words: str) -> None:
        """A stage begins, such as `measure int8 (static)`."""

    def advance(self, done: int, total: int) -> None:
        """So much of the present stage is done."""


class Silent:
    """Tells nobody."""

    def stage(self, words: str) -> None:
        """A stage begins."""

    def advance(self, done: int, total: int) -> None:
        """So much is done."""
