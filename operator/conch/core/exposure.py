"""How clients reach the object: the form of its Service, the gateways that it lists, the port on them.

From one form to the other the new way is there before the old one goes:

    Direct -> Gateway   port, acknowledged by every gateway -> our slice -> the Service loses its selector
                        -> what its controllers left behind is deleted
    Gateway -> Direct   the Service selects -> its controller's slices list the pods -> our slice goes
                        -> every kube-proxy has seen that, nothing is in flight -> the port

The second begins after a rollout, never in its middle: see traffic_split.py.
"""

from dataclasses import dataclass
from datetime import datetime

from conch.api import names
from conch.api.gateway import GatewayMode
from conch.api.model_deployment import InvalidSpec, ModelDeployment
from conch.api.types import timestamp
from conch.core.observed import ChildId, ChildKind, Observed, ObservedService, ObservedSlice
from conch.core.policy import InstallationPolicy
from conch.core.rollout.verified import ready_pods
from conch.core.succession import Succession
from conch.core.traffic_split import splits_traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """What the object's address is made of now."""

    mode: GatewayMode
    """What is asked for."""
    selects_pods: bool
    """Whether the Service sends to the pods by itself."""
    port: int | None
    """The object's port on the gateways; None when it has none (any more, or yet)."""
    listed: tuple[str, ...] | None
    """Addresses of the gateways in our slice; None for no slice."""
    unlisted_since: str | None = None
    """Since when no Service leads to the port any more."""
    left_behind: tuple[ObservedSlice, ...] = ()
    """Slices of a Service without a selector that nobody keeps: they send to pods of another time."""


def mode_of(owner: ModelDeployment) -> GatewayMode:
    """What the spec asks for; of one that cannot be read, what is."""
    if isinstance(owner.spec, InvalidSpec):
        return GatewayMode.GATEWAY if owner.status.gateway else GatewayMode.DIRECT
    return owner.spec.gateway.mode


def expose(
    owner: ModelDeployment,
    succession: Succession,
    observed: Observed,
    *,
    acknowledged: bool,
    policy: InstallationPolicy,
    now: datetime,
) -> Exposure:
    """The next step towards the mode that is asked for."""
    mode = mode_of(owner)
    service = _service(owner, observed)
    ours = _our_slice(owner, observed)
    selects = service is not None and service.selects
    if mode is GatewayMode.DIRECT:
        before = owner.status.gateway
        if before and splits_traffic(owner, observed, under_way=succession.under_way is not None):
            return Exposure(mode=mode, selects_pods=False, port=before.port, listed=_listed(observed, ours))
        keep = ours is not None and not _pods_are_listed(owner, succession, observed)
        listed = tuple(sorted(ours.ready)) if ours and keep else None
        if before is None or ours is not None:
            return Exposure(mode=mode, selects_pods=True, port=before.port if before else None, listed=listed)
        since = before.unlisted_since or timestamp(now)
        if _is_forgotten(since, observed, policy, now):
            return Exposure(mode=mode, selects_pods=True, port=None, listed=None)
        return Exposure(mode=mode, selects_pods=True, port=before.port, listed=None, unlisted_since=since)
    port = observed.port
    if port is None:
        return Exposure(mode=mode, selects_pods=selects, port=None, listed=None)
    listed = _listed(observed, ours)
    if not selects:
        left = tuple(each for each in _public_slices(owner, observed) if each.is_left_behind_without_selector)
        return Exposure(
            mode=mode, selects_pods=False, port=port, listed=listed, left_behind=left if service is not None else ()
        )
    if not acknowledged or owner.status.gateway is None or not listed:
        return Exposure(mode=mode, selects_pods=True, port=port, listed=None)
    there = ours is not None and ours.ready >= set(listed)
    return Exposure(mode=mode, selects_pods=not there, port=port, listed=listed)


def _listed(observed: Observed, ours: ObservedSlice | None) -> tuple[str, ...]:
    """The gateways that may get new clients: ready, and known to listen on the object's port.

    One that is not heard stays listed while it is ready: the kubelet says that it is. Should none be known to listen,
    all that are ready are listed: one is ready only once it has taken over everything, and an operator that reaches
    none of them must not leave the Service empty.
    """
    before = ours.ready if ours else frozenset()
    staying = [gateway for gateway in observed.gateways if gateway.ready and not gateway.leaving]
    listen = [each for each in staying if (each.traffic and each.traffic.generation) or each.address in before]
    unheard = [] if any(each.heard for each in staying) else staying
    return tuple(sorted(gateway.address for gateway in listen or unheard))


def _is_forgotten(since: str, observed: Observed, policy: InstallationPolicy, now: datetime) -> bool:
    """Whether nobody sends to the gateways any more since they were in no slice, or has had long enough."""
    waited = now - datetime.fromisoformat(since)
    words = [gateway.traffic for gateway in observed.gateways if gateway.heard and gateway.traffic]
    busy = any(word.in_flight or word.held for word in words)
    return waited >= policy.endpoint_propagation and (not busy or waited >= policy.drain_timeout)


def _pods_are_listed(owner: ModelDeployment, succession: Succession, observed: Observed) -> bool:
    """Whether the Service's own controller lists every ready pod, so that nobody needs the gateways any more."""
    serving = succession.serving
    ready = {pod.ip for pod in ready_pods(serving, observed)} if serving else set()
    listed = frozenset[str]().union(*(each.ready for each in _public_slices(owner, observed) if not each.is_ours))
    return ready <= listed


def _service(owner: ModelDeployment, observed: Observed) -> ObservedService | None:
    child = observed.children.get(ChildId(kind=ChildKind.SERVICE, name=names.service(owner.name)))
    return child if isinstance(child, ObservedService) and child.belongs_to(owner.uid) else None


def _our_slice(owner: ModelDeployment, observed: Observed) -> ObservedSlice | None:
    child = observed.children.get(ChildId(kind=ChildKind.ENDPOINT_SLICE, name=names.gateway_slice(owner.name)))
    return child if isinstance(child, ObservedSlice) and child.belongs_to(owner.uid) else None


def _public_slices(owner: ModelDeployment, observed: Observed) -> tuple[ObservedSlice, ...]:
    return tuple(each for each in observed.slices if each.service == names.service(owner.name))
