"""What the gateways say: whether they do what `status` asks of them, and what they still carry."""

from conch.api.status import ModelDeploymentStatus
from conch.core.observed import Observed, ObservedGateway


def counted(observed: Observed) -> tuple[ObservedGateway, ...]:
    """The gateways that the object's requests may go through: its slice lists them, or they know it."""
    listed = frozenset[str]().union(*(each.ready for each in observed.slices if each.is_ours))
    return tuple(
        gateway
        for gateway in observed.gateways
        if (gateway.ready and gateway.address in listed) or (gateway.heard and gateway.traffic is not None)
    )


def lagging(status: ModelDeploymentStatus, observed: Observed) -> tuple[ObservedGateway, ...]:
    """The gateways that do not do yet what this status asks for, as far as is known."""
    wanted = status.gateway.generation if status.gateway else ""
    return tuple(
        gateway
        for gateway in counted(observed)
        if gateway.traffic is None or gateway.traffic.rejected or gateway.traffic.generation != wanted
    )


def acknowledged(status: ModelDeploymentStatus, observed: Observed) -> bool:
    """Whether every gateway does what this status asks for; so it is where there is no gateway at all."""
    return not lagging(status, observed)


def acknowledged_by_heard(status: ModelDeploymentStatus, observed: Observed) -> bool:
    """The same by those that answer, of which there must be one: where nothing ends for the word of a silent one."""
    asked = counted(observed)
    heard = any(gateway.heard for gateway in asked) or not asked
    return heard and not any(gateway.heard for gateway in lagging(status, observed))


def in_flight(observed: Observed, workload: str) -> int:
    """Requests that the gateways have sent to this workload and that are not answered."""
    words = (gateway.traffic.workloads.get(workload) for gateway in counted(observed) if gateway.traffic)
    return sum(word.in_flight for word in words if word)
