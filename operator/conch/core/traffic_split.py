"""Whether an object's traffic can be split between two revisions: only gateways do that by weight."""

from conch.api import names
from conch.api.gateway import GatewayMode
from conch.api.model_deployment import InvalidSpec, ModelDeployment
from conch.core.observed import ChildId, ChildKind, Observed, ObservedService


def splits_traffic(owner: ModelDeployment, observed: Observed, *, under_way: bool) -> bool:
    """Whether requests go through gateways: in mode Gateway, and until the end of a rollout that began in it.

    A Service can select the pods of one workload only, and in the middle of a rollout neither may have enough of them
    for all of the traffic. So an edit to mode Direct waits for the end, but for one whose Service selects already.
    """
    if isinstance(owner.spec, InvalidSpec):
        return owner.status.gateway is not None
    if owner.spec.gateway.mode is GatewayMode.GATEWAY:
        return True
    gateway = owner.status.gateway
    leads_there = gateway is not None and gateway.unlisted_since is None
    return under_way and leads_there and not _selects(owner, observed)


def _selects(owner: ModelDeployment, observed: Observed) -> bool:
    service = observed.children.get(ChildId(kind=ChildKind.SERVICE, name=names.service(owner.name)))
    return isinstance(service, ObservedService) and service.belongs_to(owner.uid) and service.selects
