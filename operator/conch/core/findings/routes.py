"""Checks of the routes of the Gateway API, by which requests come in gateway.mode GatewayAPI."""

from typing import Final

from conch.api.gateway import GatewayMode
from conch.api.gateway_api import ParentReference
from conch.api.reasons import Reason
from conch.api.status import ConditionStatus, ConditionType, TrafficShare
from conch.core.finding import Finding, progressing, stalled
from conch.core.gateway_api import Behind, behind, is_served, wanted_kinds
from conch.core.situation import Situation

_PASSING: Final = ("Pending", "BackendNotFound")
"""What controllers say of a route, or of a Service, that they have only just heard of."""
_CONFLICT: Final = (
    " A listener takes an HTTPRoute and a GRPCRoute for different hostnames only: give gateway.grpcHostnames, or each"
    " protocol a parentRef of its own (parentRefs[].protocol with a sectionName)."
)


def gateway_api_is_installed(situation: Situation) -> Finding | None:
    """The cluster knows the routes that gateway.mode GatewayAPI needs."""
    served = {kind: is_served(kind, situation.observed) for kind in wanted_kinds(situation.owner)}
    missing = [kind for kind, there in served.items() if there is False]
    if not missing:
        unknown = None in served.values()
        return (
            progressing(Reason.ROUTING, "Whether this cluster has the Gateway API is looked up.") if unknown else None
        )
    return stalled(
        Reason.GATEWAY_API_MISSING,
        f"This cluster does not serve {' and '.join(missing)} of gateway.networking.k8s.io/v1, which gateway.mode "
        "GatewayAPI needs. Have the platform team install the Gateway API (version 1.1 or newer, standard channel) and "
        "a controller for it, or use mode Gateway. It is looked for again every few seconds.",
    )


def gateways_accept_the_routes(situation: Situation) -> Finding | None:
    """The platform's Gateways accept the routes, and send requests by the weights that they shall have."""
    finding = routes_finding(situation)
    if finding is None or finding.reason is not Reason.ROUTING:
        return finding
    return None if changes_nothing_of_note(situation) else finding


def changes_nothing_of_note(situation: Situation) -> bool:
    """Whether it was ready and no traffic moves to another revision: as with a time-out, or a pod that leaves."""
    before, after = situation.owner.status, situation.routing.traffic
    was_ready = (ready := before.condition(ConditionType.READY)) is not None and ready.status is ConditionStatus.TRUE
    return was_ready and _weights(before.traffic) == _weights(after)


def _weights(traffic: tuple[TrafficShare, ...]) -> dict[str, int]:
    return {share.workload: share.weight for share in traffic if share.weight}


def routes_finding(situation: Situation) -> Finding | None:
    """What keeps the routes from being done as they are to be now."""
    if situation.routing.exposure.mode is not GatewayMode.GATEWAY_API:
        return None
    succession = situation.succession
    wanted = situation.owner.status.model_copy(
        update={
            "stable": succession.stable,
            "candidate": succession.candidate,
            "traffic": situation.routing.traffic,
        }
    )
    found = behind(situation.owner, wanted, situation.observed)
    refused = [each for each in found if each.verdict and each.verdict.reason not in _PASSING]
    for each in (*refused, *found):
        return _told(each)
    return None


def _told(each: Behind) -> Finding:
    if each.parent is None:
        return progressing(Reason.ROUTING, f"{each.route} is being written.")
    gateway, verdict = _named(each.parent), each.verdict
    if verdict is None:
        return progressing(
            Reason.ROUTING,
            f"{gateway} has yet to take over {each.route}: its controller has said nothing of it as it is now. Is there"
            " a Gateway of this name, and does the controller of its GatewayClass run?",
        )
    said = f"{verdict.reason}: {verdict.message}" if verdict.message else verdict.reason or "it does not say why"
    said = said.rstrip(". ")
    if verdict.reason in _PASSING:
        return progressing(Reason.ROUTING, f"{gateway} has yet to take over {each.route} ({said}).")
    return stalled(
        Reason.ROUTE_REJECTED,
        f"{gateway} does not accept {each.route} ({said}). Correct spec.gateway, or have the platform team change the "
        f"Gateway.{_CONFLICT if 'onflict' in said else ''}",
    )


def _named(parent: ParentReference) -> str:
    namespace = f"{parent.namespace}/" if parent.namespace else ""
    listener = "".join(
        (
            f", listener {parent.section_name}" if parent.section_name else "",
            f", port {parent.port}" if parent.port else "",
        )
    )
    return f"Gateway {namespace}{parent.name}{listener}"
