"""What was seen of a model's rollouts, over time. Pure: the times are given."""

from dataclasses import dataclass, field
from datetime import datetime

from conch.api.status import ModelDeploymentStatus

ALL_PERCENT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look."""

    at: datetime
    weights: dict[int, int]
    """Version -> percent of the requests; those without any are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something to mark in the picture."""

    at: datetime
    words: str


@dataclass(slots=True, kw_only=True)
class Recording:
    """Told every status that is seen, it finds the events in them by itself."""

    samples: list[Sample] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    _versions: dict[str, int] = field(default_factory=dict)
    _stable: int | None = None
    _rejected: frozenset[str] | None = None

    @property
    def versions(self) -> list[int]:
        """That ever got requests."""
        return sorted({version for sample in self.samples for version in sample.weights})

    def mark(self, words: str, at: datetime) -> None:
        """Something that its teller did."""
        self.events.append(Event(at=at, words=words))

    def see(self, status: ModelDeploymentStatus, at: datetime) -> None:
        """A look at the object."""
        # Shares name revisions, of which only the two that are in use have their versions beside them.
        self._versions |= {each.revision: each.version for each in (status.stable, status.candidate) if each}
        self.samples.append(Sample(at=at, weights=self.weights(status)))
        stable = status.stable.version if status.stable else None
        if stable is not None and self._stable not in (None, stable):
            self.mark(f"version {stable} promoted", at)
        self._stable = stable
        rejected = frozenset(each.revision for each in status.rejected)
        for revision in sorted(rejected - self._rejected) if self._rejected is not None else ():
            self.mark(f"version {self._versions.get(revision, '?')} rolled back", at)
        self._rejected = rejected

    def weights(self, status: ModelDeploymentStatus) -> dict[int, int]:
        """Version -> percent of the requests, by what the gateways are told."""
        weights: dict[int, int] = {}
        for share in status.traffic:
            version = self._versions.get(share.revision)
            if version is not None and share.weight:
                weights[version] = weights.get(version, 0) + share.weight
        return weights
