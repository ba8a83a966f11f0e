"""Which workload gets how much of the traffic: `status.traffic`, which the gateways follow."""

from datetime import datetime
from typing import Final

from conch.api.canonical import canonical_hash
from conch.api.gateway import Gateway
from conch.api.status import ModelDeploymentStatus, TrafficShare
from conch.core.acknowledgement import in_flight
from conch.core.drain import begun, drained
from conch.core.observed import Observed
from conch.core.policy import InstallationPolicy
from conch.core.staffing import Staffing
from conch.core.succession import Succession

_SHARES_MOST: Final = 16


def share_out(
    status: ModelDeploymentStatus,
    succession: Succession,
    staffing: Staffing,
    observed: Observed,
    *,
    acknowledged: bool,
    policy: InstallationPolicy,
    now: datetime,
) -> tuple[TrafficShare, ...]:
    """Everything to the revision that serves; nothing new to those before it, which stay until they are drained."""
    serving = succession.serving
    if serving is None:
        return status.traffic
    before = share_of(status, serving.workload)
    main = TrafficShare(
        revision=serving.revision,
        workload=serving.workload,
        weight=100,
        draining=staffing.leaving,
        draining_since=begun(before, now) if staffing.leaving else None,
    )
    if status.gateway is None:
        # No gateway ever sent anything to those before it.
        return (main,)
    retiring = []
    for share in status.traffic:
        if share.workload == serving.workload or observed.deployment_of(share.workload) is None:
            continue
        over = share.weight == 0 and drained(
            share,
            in_flight=in_flight(observed, share.workload),
            acknowledged=acknowledged,
            policy=policy,
            now=now,
        )
        if not over:
            since = begun(share if share.weight == 0 else None, now)
            retiring.append(share.model_copy(update={"weight": 0, "draining": (), "draining_since": since}))
    return (main, *retiring[: _SHARES_MOST - 1])


def share_of(status: ModelDeploymentStatus, workload: str) -> TrafficShare | None:
    """What a workload gets by this status."""
    return next((share for share in status.traffic if share.workload == workload), None)


def generation_of(traffic: tuple[TrafficShare, ...], port: int, gateway: Gateway | None) -> str:
    """A name for what gateways are to do: another one whenever that changes.

    With the times in it: a gateway's old word about the same pods, drained once before, must not count again.
    """
    shares = [share.model_dump(mode="json") for share in traffic]
    return canonical_hash({"traffic": shares, "port": port, "gateway": gateway.to_wire() if gateway else None})
