"""Checks of the way from clients to pods."""

from conch.api import gateway_pod
from conch.api.gateway import GatewayMode
from conch.api.reasons import Reason
from conch.core.acknowledgement import lagging
from conch.core.finding import UNREACHABLE, Finding, progressing, stalled
from conch.core.findings.routes import changes_nothing_of_note, gateway_api_is_installed, routes_finding
from conch.core.observed_child import ChildKind
from conch.core.situation import Situation


def a_port_is_free(situation: Situation) -> Finding | None:
    """The object has a port on the gateways."""
    exposure = situation.routing.exposure
    if exposure.mode is not GatewayMode.GATEWAY or exposure.port is not None:
        return None
    ports = situation.policy.gateway_ports
    return stalled(
        Reason.PORTS_EXHAUSTED,
        f"Each of the gateways' {len(ports)} ports ({ports.start}-{ports.stop - 1}) belongs to a ModelDeployment. "
        "Remove one, set gateway.mode to Direct, or have the platform team widen the chart's gateway.ports.",
    )


def gateways_are_there(situation: Situation) -> Finding | None:
    """A gateway is ready to take requests."""
    gateways = situation.observed.gateways
    if situation.routing.exposure.mode is not GatewayMode.GATEWAY or any(gateway.ready for gateway in gateways):
        return None
    if gateways:
        return progressing(Reason.NO_GATEWAY, f"None of the {len(gateways)} gateway pods is ready yet.")
    return stalled(
        Reason.NO_GATEWAY,
        "There is no gateway pod: look at the Deployment conch-gateway in the operator's namespace, or set "
        "gateway.mode to Direct.",
    )


def gateways_route(situation: Situation) -> Finding | None:
    """Every gateway sends requests where they shall go."""
    finding = _every_gateway_follows(situation)
    if finding is None or finding.reason is not Reason.ROUTING:
        return finding
    return None if changes_nothing_of_note(situation) else finding


def service_sends_to_it(situation: Situation) -> Finding | None:
    """The Service sends requests there."""
    for child in sorted(situation.unwritten):
        if child.kind is ChildKind.SERVICE or (child.kind is ChildKind.ENDPOINT_SLICE and not _is_answered(situation)):
            return progressing(Reason.PROGRESSING, f"{child} is being written.")
    exposure = situation.routing.exposure
    if exposure.selects_pods is (exposure.mode is GatewayMode.GATEWAY):
        return progressing(Reason.ROUTING, f"The Service changes to gateway.mode {exposure.mode}.")
    if exposure.mode is GatewayMode.GATEWAY and not exposure.listed:
        return progressing(Reason.ROUTING, f"No gateway is known to listen on its port {exposure.port} yet.")
    return None


def _is_answered(situation: Situation) -> bool:
    """Whether the Service sends to a gateway that stays: another that comes or goes makes nothing less ready."""
    staying = frozenset(situation.routing.exposure.listed or ())
    return any(staying & each.ready for each in situation.observed.slices if each.is_ours)


def routing_finding(situation: Situation) -> Finding | None:
    """What keeps RoutingSynced from being true: all of the above, and every change however small."""
    return (
        a_port_is_free(situation)
        or gateway_api_is_installed(situation)
        or gateways_are_there(situation)
        or _every_gateway_follows(situation)
        or routes_finding(situation)
        or service_sends_to_it(situation)
    )


def _every_gateway_follows(situation: Situation) -> Finding | None:
    wanted = situation.routing.gateway
    if wanted is None:
        return None
    behind = lagging(situation.owner.status.model_copy(update={"gateway": wanted}), situation.observed)
    for gateway in behind:
        if gateway.traffic is not None and gateway.traffic.rejected:
            return stalled(
                Reason.ROUTE_REJECTED,
                f"Envoy of gateway {gateway.name} refuses the route: {gateway.traffic.waits_for}. "
                "What it did before goes on.",
            )
    for gateway in behind:
        if not gateway.heard:
            return progressing(
                Reason.GATEWAY_SILENT,
                f"Gateway {gateway.name} does not answer the operator at port {gateway_pod.REPORT_PORT}; it may not "
                f"know yet where requests shall go. {UNREACHABLE}",
            )
    if behind:
        words = next((each.traffic.waits_for for each in behind if each.traffic and each.traffic.waits_for), "")
        detail = f": {words}" if words else ""
        return progressing(Reason.ROUTING, f"{len(behind)} gateways have yet to take over the route{detail}.")
    return None
