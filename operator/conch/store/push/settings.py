"""What a push is given beside the model and its source."""

from dataclasses import dataclass, field

from conch.store.credentials import Credentials
from conch.store.push.meter import Meter


@dataclass(frozen=True, slots=True, kw_only=True)
class PushSettings:
    """The command's options."""

    shown: str
    """The target's URI as people may see it: without a query string."""
    meter: Meter
    credentials: Credentials = field(default_factory=Credentials)
    overwrite: bool = False
    """Whether what is at the target may be replaced."""
    create: bool = False
    """Whether a repository that is missing is made."""
    namespace: str | None = None
    """Of a claim; without it, that of kubectl's context."""
    image: str | None = None
    """Conch's own, for the pod that writes to a claim."""
