"""How requests are to reach the object: what clients call, which pods serve, and where the gateways send it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from conch.api.model_deployment import ModelDeployment
from conch.api.rollout import RolloutStatus
from conch.api.spec import ModelDeploymentSpec
from conch.api.status import GatewayStatus, ModelDeploymentStatus, ServedRevision, TrafficShare
from conch.core.exposure import Exposure, expose
from conch.core.following import followed
from conch.core.gateway_api import has_routes
from conch.core.held_back import NOBODY, held_back
from conch.core.in_place import Turns, shares_home, take_turns, yet_to_turn
from conch.core.observed import Observed
from conch.core.policy import InstallationPolicy
from conch.core.rollout.verified import golden_policy
from conch.core.staffing import Staffing, staff
from conch.core.succession import Succession
from conch.core.traffic import generation_of, share_of, share_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """The routing that a plan asks for."""

    exposure: Exposure
    staffings: Mapping[str, Staffing]
    """The pods of every workload, by its id."""
    replicas: Mapping[str, int]
    """What the Deployment of each home asks for."""
    rollout: RolloutStatus | None
    """The rollout, with whose turn it is where pods change their model in place."""
    traffic: tuple[TrafficShare, ...]
    gateway: GatewayStatus | None
    """The object's place at the gateways; None where they have nothing to do with it."""
    by_routes: bool = False
    """Whether requests come by routes of the Gateway API."""

    @property
    def retiring(self) -> tuple[str, ...]:
        """The workloads that only finish what they have: they stay as they are until then."""
        return tuple(share.workload for share in self.traffic if share.workload not in self.staffings)

    @property
    def homes(self) -> tuple[str, ...]:
        """The workloads whose pods serve, or finish what they have."""
        retiring = (share.home for share in self.traffic if share.workload not in self.staffings)
        return tuple(dict.fromkeys((*self.replicas, *retiring)))


def route(
    owner: ModelDeployment,
    succession: Succession,
    replicas: int,
    observed: Observed,
    policy: InstallationPolicy,
    now: datetime,
) -> Routing:
    """The next step of everything that requests depend on; `replicas` is how many pods the object is to have."""
    status = owner.status
    everywhere = followed(owner, observed)
    exposure = expose(owner, succession, observed, acknowledged=everywhere, policy=policy, now=now)
    spec = owner.spec if isinstance(owner.spec, ModelDeploymentSpec) else None
    # A Service on the pods themselves sends to each that is ready, and so do Gateways that take theirs from a Service.
    through_gateways = exposure.port is not None
    held = held_back(status, succession, observed, golden_policy(spec) if spec else None) if through_gateways else {}
    by_routes = has_routes(owner, observed)
    turns = _turns(owner, succession, replicas, held, observed, acknowledged=everywhere, policy=policy, now=now)
    if turns is not None:
        succession = replace(succession, rollout=turns.rollout)
        staffings, asked = turns.staffings, turns.replicas
    else:
        staffings = {
            served.workload: staff(
                served.workload,
                _replicas_of(served, succession, replicas, status, by_routes=by_routes, everywhere=everywhere),
                share_of(status, served.workload),
                observed,
                held=held.get(served.workload, NOBODY) | yet_to_turn(served, observed),
                gets_share=succession.is_due(served),
                through_gateways=through_gateways,
                acknowledged=everywhere,
                policy=policy,
                now=now,
            )
            for served in succession.workloads
        }
        asked = {served.home: staffings[served.workload].replicas for served in succession.workloads}
    traffic = share_out(
        status,
        succession,
        staffings,
        observed,
        drains=status.gateway is not None or by_routes,
        acknowledged=everywhere,
        policy=policy,
        now=now,
    )
    gateway = None
    if exposure.port is not None:
        settings = spec.gateway if spec else None
        gateway = GatewayStatus(
            port=exposure.port,
            generation=generation_of(traffic, exposure.port, settings),
            unlisted_since=exposure.unlisted_since,
            unselected_since=exposure.unselected_since,
        )
    return Routing(
        exposure=exposure,
        staffings=staffings,
        replicas=asked,
        rollout=succession.rollout,
        traffic=traffic,
        gateway=gateway,
        by_routes=by_routes,
    )


def _replicas_of(
    served: ServedRevision,
    succession: Succession,
    replicas: int,
    status: ModelDeploymentStatus,
    *,
    by_routes: bool,
    everywhere: bool,
) -> int:
    """How many pods a revision is to have: the last one stays until no Gateway sends it anything any more.

    Gateways answer with errors what a route gives to a workload without servers. Where it keeps its weight without any
    (suspended, recreated), that is meant.
    """
    wanted = succession.replicas_of(served, replicas)
    share = share_of(status, served.workload)
    if wanted or not by_routes or share is None or succession.weight_of(served):
        return wanted
    return 1 if share.weight or not everywhere else 0


def _turns(
    owner: ModelDeployment,
    succession: Succession,
    replicas: int,
    held: Mapping[str, frozenset[str]],
    observed: Observed,
    *,
    acknowledged: bool,
    policy: InstallationPolicy,
    now: datetime,
) -> Turns | None:
    """Of two revisions that are served by the same pods; None where each has its own."""
    stable, candidate, rollout = succession.stable, succession.candidate, succession.under_way
    if stable is None or candidate is None or rollout is None or not shares_home(stable, candidate):
        return None
    return take_turns(
        rollout,
        stable,
        candidate,
        replicas,
        shares=(share_of(owner.status, stable.workload), share_of(owner.status, candidate.workload)),
        held=(held.get(stable.workload, NOBODY), held.get(candidate.workload, NOBODY)),
        observed=observed,
        acknowledged=acknowledged,
        policy=policy,
        now=now,
    )
