"""Something that is wrong with a repository."""

from dataclasses import dataclass
from typing import Final

AGAIN: Final = "package the model again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong."""

    model: str
    """Its name; empty for what belongs to none."""
    place: str
    """The file, by its path in the repository, or the tensor."""
    problem: str
    remedy: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.place}: {self.problem}; {self.remedy}"
