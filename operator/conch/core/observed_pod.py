"""A pod as the cluster and its agent tell of it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from conch.api.agent_report import AgentReport


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedContainer:
    """One container's state as the kubelet reports it."""

    name: str
    ready: bool = False
    restarts: int = 0
    waiting_reason: str = ""
    waiting_message: str = ""
    last_exit: str = ""
    last_exit_at: datetime | None = None


DEVICES_ALLOCATED: Final = "cannot allocate all claims"
"""What the scheduler says of a node on which no device is left for a pod's claims."""
_SHORTAGES: Final = ("Insufficient ", DEVICES_ALLOCATED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedPod:
    """A pod of a workload. `report` is the agent's own word, absent until it could be asked."""

    name: str
    uid: str
    workload: str
    phase: str = "Pending"
    ready: bool = False
    deleting: bool = False
    failure: str = ""
    """Why the node ended it for good (evicted, not admitted)."""
    node: str = ""
    node_cordoned: bool = False
    """Somebody is about to drain its node."""
    node_lost: bool = False
    """The cluster gave it up because its node does not answer."""
    scheduled: bool = False
    unschedulable_message: str = ""
    gated: bool = False
    """A queue (or another scheduling gate) holds it back from the scheduler."""
    waits_for_scheduler: str = ""
    """Name of the scheduler that has not said anything of it yet; empty once it has."""
    missing_claims: tuple[str, ...] = ()
    """The ResourceClaimTemplates of which no claim was made for it yet; until then the scheduler leaves it alone."""
    ip: str = ""
    created: str = ""
    marked_for_removal: bool = False
    """Of the ready pods of its workload, the Deployment's controller removes it first."""
    shown_change: str = ""
    """The in-place change that its kubelet was last told of."""
    containers: tuple[ObservedContainer, ...] = ()
    report: AgentReport | None = None
    key_refused: bool = False
    """The agent does not know this object's admin key: the pod was started with another Secret's."""
    agent_unreachable: bool = False
    """The agent was asked several times and never answered."""

    @property
    def cannot_be_asked(self) -> bool:
        """Whether its agent was tried and says nothing."""
        return self.report is None and (self.agent_unreachable or self.key_refused)

    @property
    def lacks_room(self) -> bool:
        """Whether it has no node for want of what other pods hold: they would make room for it by ending."""
        return not self.scheduled and (self.gated or any(said in self.unschedulable_message for said in _SHORTAGES))

    @property
    def has_started(self) -> bool:
        """Whether one of its containers was ever started: then everything that they name was there."""
        return any(not container.waiting_reason for container in self.containers)
