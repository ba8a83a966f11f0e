"""Which workload gets how much of the traffic: `status.traffic`, which the gateways follow."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from conch.api.canonical import canonical_hash
from conch.api.gateway import Gateway
from conch.api.status import ModelDeploymentStatus, ServedRevision, TrafficShare
from conch.core.acknowledgement import in_flight
from conch.core.drain import begun, drained
from conch.core.in_place import shares_home
from conch.core.observed import Observed
from conch.core.policy import InstallationPolicy
from conch.core.staffing import Staffing
from conch.core.succession import Succession

_SHARES_MOST: Final = 16
_DRAINING_MOST: Final = 1000


def share_out(
    status: ModelDeploymentStatus,
    succession: Succession,
    staffings: Mapping[str, Staffing],
    observed: Observed,
    *,
    drains: bool,
    acknowledged: bool,
    policy: InstallationPolicy,
    now: datetime,
) -> tuple[TrafficShare, ...]:
    """What each revision is to have; nothing new to those before them, which stay until they are drained.

    `drains`: whether there is anybody by whom they are sent requests, and who has to learn that they get none.

    A revision has no share before it gets traffic: its pods may be ready and not be verified yet.
    """
    if not succession.workloads:
        return status.traffic
    shares = [
        _share(served, succession, staffings[served.workload], before, now)
        for served in succession.workloads
        if (before := share_of(status, served.workload)) or succession.is_due(served)
    ]
    if not drains:
        # Nobody ever sent anything to those before them by weight.
        return _most_first(shares)
    named = {served.workload for served in succession.workloads}
    retiring = []
    for share in status.traffic:
        if share.workload in named or observed.deployment_of(share.workload) is None:
            continue
        # One that is still kept warm has no time: it begins to drain now.
        over = share.weight == 0 and drained(
            share,
            in_flight=in_flight(observed, share.workload),
            acknowledged=acknowledged,
            policy=policy,
            now=now,
        )
        if not over:
            since = begun(share if share.weight == 0 else None, now)
            nothing = {"weight": 0, "draining": (), "draining_since": since, "shadow": None}
            retiring.append(share.model_copy(update=nothing))
    return _most_first([*shares, *retiring[: _SHARES_MOST - len(shares)]])


def _most_first(shares: list[TrafficShare]) -> tuple[TrafficShare, ...]:
    return tuple(sorted(shares, key=lambda share: -share.weight))


def _share(
    served: ServedRevision, succession: Succession, staffing: Staffing, before: TrafficShare | None, now: datetime
) -> TrafficShare:
    return TrafficShare(
        revision=served.revision,
        workload=served.workload,
        host=served.host,
        pods=_own_pods(served, succession),
        weight=succession.weight_of(served),
        draining=(*staffing.leaving, *sorted(staffing.held.difference(staffing.leaving)))[:_DRAINING_MOST],
        draining_since=begun(before, now) if staffing.leaving else None,
        shadow=succession.shadow_of(served),
    )


def _own_pods(served: ServedRevision, succession: Succession) -> tuple[str, ...] | None:
    """Of a home's pods those that serve this revision; None for all of them.

    The others' are no servers of the stable revision because they are listed in its `draining`: so a pod that comes
    meanwhile serves that, whoever is away. What loads one model beside the other answers for both.
    """
    rollout = succession.under_way
    is_guest = served == succession.candidate and shares_home(succession.stable, served)
    return rollout.turned if is_guest and rollout and not rollout.beside else None


def share_of(status: ModelDeploymentStatus, workload: str) -> TrafficShare | None:
    """What a workload gets by this status."""
    return next((share for share in status.traffic if share.workload == workload), None)


def generation_of(traffic: tuple[TrafficShare, ...], port: int, gateway: Gateway | None) -> str:
    """A name for what gateways are to do: another one whenever that changes.

    With the times in it: a gateway's old word about the same pods, drained once before, must not count again. Pods that
    are only held back are not in it: they are listed long before they are ready, so nothing waits for that.
    """
    shares = [share.model_dump(mode="json", exclude=_unsaid(share)) for share in traffic]
    return canonical_hash({"traffic": shares, "port": port, "gateway": gateway.to_wire() if gateway else None})


def _unsaid(share: TrafficShare) -> set[str]:
    # Without any of it the name is what it was before there was that, so an upgrade asks gateways for nothing new.
    is_said = {
        "draining": share.draining_since is not None,
        "shadow": share.shadow is not None,
        "host": share.host is not None,
        "pods": share.pods is not None,
    }
    return {field for field, said in is_said.items() if not said}
