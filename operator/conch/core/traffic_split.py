"""Whether an object's traffic can be split between two revisions: a plain Service does not go by weight."""

from conch.api import names
from conch.api.gateway import GatewayMode
from conch.api.model_deployment import InvalidSpec, ModelDeployment
from conch.core.gateway_api import has_routes
from conch.core.observed import Observed
from conch.core.observed_child import ChildId, ChildKind, ObservedService


def splits_traffic(owner: ModelDeployment, observed: Observed, *, under_way: bool) -> bool:
    """Whether requests go by weight: in modes Gateway and GatewayAPI, and until the end of a rollout that began so."""
    if isinstance(owner.spec, InvalidSpec):
        return owner.status.gateway is not None or has_routes(owner, observed)
    if owner.spec.gateway.mode is not GatewayMode.DIRECT:
        return True
    return stays_with_gateways(owner, observed, under_way=under_way)


def stays_with_gateways(owner: ModelDeployment, observed: Observed, *, under_way: bool) -> bool:
    """Whether the Service goes on leading to Conch's gateways although another mode is asked for.

    A Service can select the pods of one workload only, and in the middle of a rollout neither may have enough of them
    for all of the traffic. So an edit to another mode waits for the end, but for one whose Service selects already.
    """
    gateway = owner.status.gateway
    leads_there = gateway is not None and gateway.unlisted_since is None
    return under_way and leads_there and not _selects(owner, observed)


def _selects(owner: ModelDeployment, observed: Observed) -> bool:
    service = observed.children.get(ChildId(kind=ChildKind.SERVICE, name=names.service(owner.name)))
    return isinstance(service, ObservedService) and service.belongs_to(owner.uid) and service.selects
