"""What carrying out plans has taught about one object and no watch can tell. Memory only: it is learnt again."""

from dataclasses import dataclass, field

from conch.core.observed_child import ChildId, Controller


@dataclass(slots=True)
class Facts:
    """Facts about one ModelDeployment (of one uid)."""

    uid: str
    strangers: dict[ChildId, Controller | None] = field(default_factory=dict)
    refusals: dict[ChildId, str] = field(default_factory=dict)
    secret_known: bool = False
    """Whether the admin-key Secret was created or found."""

    @property
    def obstacles(self) -> tuple[frozenset[ChildId], frozenset[ChildId]]:
        """Which children met a stranger, and which were refused."""
        return frozenset(self.strangers), frozenset(self.refusals)

    def accepted(self, child: ChildId) -> None:
        """The API server took this child."""
        self.strangers.pop(child, None)
        self.refusals.pop(child, None)
