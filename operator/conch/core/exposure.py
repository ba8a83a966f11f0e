"""How clients reach the object: the form of its Service, the gateways that it lists, the port on them.

From one form to the other the new way is there before the old one goes:

    Direct -> Gateway   port, acknowledged by every gateway -> our slice -> the Service loses its selector
                        -> what its controllers left behind is deleted
    Gateway -> Direct   the Service selects -> its controller's slices list the pods -> our slice goes
                        -> every kube-proxy has seen that, nothing is in flight -> the port

The second begins after a rollout, never in its middle: see traffic_split.py.

In mode GatewayAPI the Service is the same as in mode Direct, for whoever calls from within the cluster; the routes of
the platform's Gateways stand beside it (gateway_api.py) and are there, or gone, with the mode.

Where NetworkPolicies are kept, pods are open to all clients before the Service selects them. They stay so when it no
longer does, until the last of them has ended: clients go on with the connections that they have to these.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from conch.api import names
from conch.api.gateway import GatewayMode
from conch.api.model_deployment import InvalidSpec, ModelDeployment
from conch.api.status import GatewayStatus
from conch.api.types import timestamp
from conch.core.observed import Observed
from conch.core.observed_child import ChildId, ChildKind, ObservedService, ObservedSlice
from conch.core.policy import InstallationPolicy
from conch.core.rollout.verified import ready_pods
from conch.core.succession import Succession
from conch.core.traffic_split import stays_with_gateways


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
    opens_pods: bool = False
    """Whether any client may connect to the pods themselves."""
    unselected_since: str | None = None
    """Since when the Service no longer sends to pods by itself, while a pod from before still runs."""
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
    before = owner.status.gateway
    if mode is not GatewayMode.GATEWAY:
        return _direct(owner, mode, succession, observed, before, ours, policy=policy, now=now)
    port = observed.port
    if port is None:
        return Exposure(mode=mode, selects_pods=selects, port=None, listed=None, opens_pods=selects)
    listed = _listed(observed, ours)
    if not selects:
        left = tuple(each for each in _public_slices(owner, observed) if each.is_left_behind_without_selector)
        since = _still_connected_since(before, observed)
        return Exposure(
            mode=mode,
            selects_pods=False,
            port=port,
            listed=listed,
            opens_pods=since is not None,
            unselected_since=since,
            left_behind=left if service is not None else (),
        )
    if not acknowledged or before is None or not listed:
        return Exposure(mode=mode, selects_pods=True, port=port, listed=None, opens_pods=True)
    there = ours is not None and ours.ready >= set(listed)
    return Exposure(
        mode=mode,
        selects_pods=not there,
        port=port,
        listed=listed,
        opens_pods=True,
        unselected_since=(before.unselected_since or timestamp(now)) if there else None,
    )


def _direct(
    owner: ModelDeployment,
    mode: GatewayMode,
    succession: Succession,
    observed: Observed,
    before: GatewayStatus | None,
    ours: ObservedSlice | None,
    *,
    policy: InstallationPolicy,
    now: datetime,
) -> Exposure:
    """The next step towards a mode without Conch's gateways, for which the pods are open at once."""
    step = Exposure(
        mode=mode,
        selects_pods=True,
        port=before.port if before else None,
        listed=None,
        opens_pods=True,
    )
    if before and stays_with_gateways(owner, observed, under_way=succession.under_way is not None):
        return replace(step, selects_pods=False, listed=_listed(observed, ours))
    if ours is not None:
        keep = not _pods_are_listed(owner, succession, observed)
        return replace(step, listed=tuple(sorted(ours.ready)) if keep else None)
    if before is None:
        return step
    since = before.unlisted_since or timestamp(now)
    if _is_forgotten(since, observed, policy, now):
        return replace(step, port=None)
    return replace(step, unlisted_since=since)


def _still_connected_since(before: GatewayStatus | None, observed: Observed) -> str | None:
    """Since when clients connect to pods no more, while there are pods to which some may be connected from before."""
    since = before.unselected_since if before else None
    return since if since and observed.has_pods_made_by(datetime.fromisoformat(since)) else None


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
