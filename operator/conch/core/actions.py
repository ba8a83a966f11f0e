"""Everything that a plan may ask for. Appliers carry these out and decide nothing."""

from dataclasses import dataclass

from conch.api.assignment import Pin
from conch.core.desired.object import DesiredObject
from conch.core.observed_child import ChildId


@dataclass(frozen=True, kw_only=True)
class Apply:
    """Write a child. With `uid` None it must not exist yet; otherwise it must still be the object of that uid."""

    desired: DesiredObject
    uid: str | None


@dataclass(frozen=True, kw_only=True)
class EnsureAdminKey:
    """Create the admin-key Secret unless there is one; its value is derived where it is written."""

    desired: DesiredObject


@dataclass(frozen=True, kw_only=True)
class Delete:
    """Delete exactly the object that was observed."""

    id: ChildId
    uid: str
    resource_version: str


@dataclass(frozen=True, kw_only=True)
class TellPin:
    """Tell a pod's agent which files its revision has; the kubelet brings the same with the assignment, only later."""

    pod: str
    address: str
    revision: str
    pin: Pin


@dataclass(frozen=True, kw_only=True)
class TellTurn:
    """Tell a pod's agent which revision of a change it is to serve; the kubelet brings the same, only later."""

    pod: str
    address: str
    change: str
    turn: int
    revision: str


@dataclass(frozen=True, kw_only=True)
class ShowChange:
    """Have a pod's kubelet bring its assignment up to date, now that this brings a change."""

    pod: str
    uid: str
    change: str


@dataclass(frozen=True, kw_only=True)
class MarkForRemoval:
    """Let the Deployment's controller remove this pod before others: it has been drained."""

    pod: str
    uid: str


@dataclass(frozen=True, kw_only=True)
class DeleteEndpoints:
    """Delete the Endpoints of a Service that has lost its selector: they are kept by nobody, and copied to slices."""

    service: str


@dataclass(frozen=True, kw_only=True)
class OpenWindow:
    """Count anew what the object's workloads are seen doing, under this name."""

    name: str


Action = (
    Apply | EnsureAdminKey | Delete | TellPin | TellTurn | ShowChange | MarkForRemoval | DeleteEndpoints | OpenWindow
)
