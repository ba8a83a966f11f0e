"""Which revision has the traffic, which is being brought up, and what comes next of that.

`status.stable` and `status.candidate` are the two revisions that have a workload, `status.rollout` is the way from one
to the other (see rollout/machine.py). The first revision of an object has nothing to take over from: it is the
candidate until all of its pods are verified. Whatever is no longer named here is removed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from conch.api import names
from conch.api.agent_report import AgentPhase
from conch.api.model_deployment import ModelDeployment
from conch.api.rollout import (
    CommandStatus,
    RejectedRevision,
    RollbackCause,
    RolloutPhase,
    RolloutStatus,
    Strategy,
)
from conch.api.shadow import ShadowShare
from conch.api.spec import ModelDeploymentSpec
from conch.api.status import ServedRevision
from conch.api.types import timestamp
from conch.core.history import with_past
from conch.core.observed import Observed
from conch.core.pinning import pinned
from conch.core.policy import InstallationPolicy
from conch.core.rollout.commands import Obeyed, with_rejected
from conch.core.rollout.in_place_fit import misfit
from conch.core.rollout.looking import look, look_back
from conch.core.rollout.machine import advance, begin, roll_back
from conch.core.rollout.phases import FAILURES, NO_TRAFFIC_YET, UNDER_WAY
from conch.core.rollout.verified import golden_policy, ready_pods, verified_pods
from conch.core.traffic_split import splits_traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class Succession:
    """The revisions that have a workload. At least one of the two is set once a spec could be read."""

    stable: ServedRevision | None
    candidate: ServedRevision | None
    workloads_created: int
    rollout: RolloutStatus | None = None
    """The one that is under way, or the last one."""
    rejected: tuple[RejectedRevision, ...] = ()
    past: tuple[str, ...] = ()
    """Revisions that were stable before, newest first."""
    rolled_back_to: str | None = None
    command: CommandStatus | None = None
    proven: bool = True
    """Whether any pod of the first revision of an object was verified."""

    @property
    def wanted(self) -> ServedRevision | None:
        """The revision that is to serve: the newest that is not given up."""
        return self.candidate or self.stable

    @property
    def serving(self) -> ServedRevision | None:
        """The revision that most requests go to."""
        takes_over = self.under_way is not None and self.under_way.weight > 50
        return self.candidate if takes_over else self.stable or self.candidate

    @property
    def workloads(self) -> tuple[ServedRevision, ...]:
        """Everything that has pods."""
        return tuple(revision for revision in (self.stable, self.candidate) if revision)

    @property
    def under_way(self) -> RolloutStatus | None:
        """The rollout from the stable revision to the candidate; None if there is none."""
        return self.rollout if self.rollout and self.stable and self.candidate else None

    def replicas_of(self, served: ServedRevision, replicas: int) -> int:
        """How many pods a revision is to have, of an object that is to have `replicas`."""
        if self.under_way is None or replicas == 0:
            return replicas
        return self.under_way.candidate_replicas if served == self.candidate else self.under_way.stable_replicas

    def weight_of(self, served: ServedRevision) -> int:
        """Percent of the traffic that a revision is to have."""
        if self.under_way is None:
            return 100 if served == self.serving else 0
        return self.under_way.weight if served == self.candidate else 100 - self.under_way.weight

    def is_due(self, served: ServedRevision) -> bool:
        """Whether a revision that never had a share of the traffic gets one now.

        A pod that is changed to it in place belongs to it from its turn on, and to nobody else.
        """
        has_pods = self.under_way is not None and bool(self.under_way.turned) and not self.under_way.beside
        has_use = served == self.stable or self.weight_of(served) > 0 or self.shadow_of(served) is not None
        return self.proven and (has_use or has_pods)

    def shadow_of(self, served: ServedRevision) -> ShadowShare | None:
        """The copies of requests that a revision is to get besides; None for none."""
        rollout = self.under_way
        if rollout is None or rollout.phase is not RolloutPhase.SHADOWING or served != self.candidate:
            return None
        return rollout.shadow.share if rollout.shadow else None


def succeed(
    owner: ModelDeployment,
    spec: ModelDeploymentSpec,
    wanted: str,
    obeyed: Obeyed,
    observed: Observed,
    *,
    acknowledged: bool,
    policy: InstallationPolicy,
    now: datetime,
) -> Succession:
    """One step from what status says, after the last command, towards the wanted revision."""
    known = _known(owner, obeyed)
    if known.stable is None:
        return _first(known, owner, spec, wanted, observed, policy, now)
    if known.candidate is not None and known.rollout is not None and known.rollout.phase in UNDER_WAY:
        return _go_on(known, owner, spec, wanted, observed, acknowledged=acknowledged, policy=policy, now=now)
    stable = known.stable
    known = replace(known, rollout=_ended(known.rollout, owner))
    if stable.revision == wanted:
        return replace(known, stable=pinned(stable, spec.declared_digest, observed), candidate=None)
    if _is_rejected(known, wanted):
        return replace(known, candidate=None)
    # Also where there are no replicas: what has proven itself stays until another has. It rests until there are some.
    return _begin(known, owner, spec, wanted, observed, policy, now)


def without_spec(
    owner: ModelDeployment,
    obeyed: Obeyed,
    observed: Observed,
    *,
    acknowledged: bool,
    policy: InstallationPolicy,
    now: datetime,
) -> Succession:
    """What runs stays, for nothing can be derived from a spec that cannot be read; but a way back goes on.

    For that nothing of the spec is needed: the traffic goes to what was proven.
    """
    known = _known(owner, obeyed)
    stable, candidate, rollout = known.stable, known.candidate, known.rollout
    if stable and candidate and rollout and rollout.phase is RolloutPhase.ROLLING_BACK:
        sight = look_back(
            rollout,
            replicas=owner.status.desired_replicas,
            stable=stable,
            candidate=candidate,
            listed=_listed(owner),
            observed=observed,
            acknowledged=acknowledged,
            policy=policy,
            now=now,
        )
        return _after(known, advance(rollout, sight), now)
    # But for pods that wait for their pin; where a digest was declared, none does.
    waiting = any(pod.report and pod.report.phase is AgentPhase.FETCHED for pod in observed.pods)
    return replace(known, candidate=pinned(candidate, None, observed)) if candidate and waiting else known


def _known(owner: ModelDeployment, obeyed: Obeyed) -> Succession:
    """What status says, after the last command."""
    status = owner.status
    return Succession(
        stable=status.stable,
        candidate=status.candidate,
        workloads_created=status.workloads_created,
        rollout=obeyed.rollout,
        rejected=obeyed.rejected,
        past=status.past,
        rolled_back_to=obeyed.rolled_back_to,
        command=obeyed.command,
    )


def _is_rejected(known: Succession, revision: str) -> bool:
    return any(rejected.revision == revision for rejected in known.rejected)


def _listed(owner: ModelDeployment) -> Mapping[str, frozenset[str]]:
    """By workload, the pods that get nothing new by what status says."""
    return {share.workload: frozenset(share.draining) for share in owner.status.traffic}


def _hosted(candidate: ServedRevision, stable: ServedRevision, rollout: RolloutStatus) -> ServedRevision:
    """The candidate in the pods that it is to have: by this strategy those of the stable revision, or its own."""
    host = stable.home if rollout.strategy is Strategy.IN_PLACE else None
    return candidate if candidate.host == host else candidate.model_copy(update={"host": host})


def _first(
    known: Succession,
    owner: ModelDeployment,
    spec: ModelDeploymentSpec,
    wanted: str,
    observed: Observed,
    policy: InstallationPolicy,
    now: datetime,
) -> Succession:
    """Nothing is known to serve: the candidate is all there is."""
    candidate = known.candidate
    has_traffic = candidate and any(share.workload == candidate.workload for share in owner.status.traffic)
    is_other = candidate and candidate.revision != wanted and not _is_rejected(known, wanted)
    if candidate and is_other and has_traffic and spec.desired_replicas and ready_pods(candidate, observed):
        # It serves, if not with all of its pods: nothing is taken from it before another is proven.
        return _begin(replace(known, stable=candidate, candidate=None), owner, spec, wanted, observed, policy, now)
    if candidate is None or is_other:
        known = _with_candidate(known, owner, spec, wanted)
    assert known.candidate is not None  # noqa: S101 - the lines above
    declared = spec.declared_digest if known.candidate.revision == wanted else known.candidate.digest
    candidate = pinned(known.candidate, declared, observed)
    verified = len(verified_pods(candidate, observed, golden_policy(spec)))
    if 0 < spec.desired_replicas <= verified:
        return replace(known, stable=candidate, candidate=None)
    return replace(known, candidate=candidate, proven=verified > 0)


def _with_candidate(known: Succession, owner: ModelDeployment, spec: ModelDeploymentSpec, wanted: str) -> Succession:
    created = known.workloads_created + 1
    candidate = ServedRevision(
        revision=wanted, version=spec.model.version, workload=names.workload_id(owner.uid, created)
    )
    return replace(known, candidate=candidate, workloads_created=created)


def _begin(
    known: Succession,
    owner: ModelDeployment,
    spec: ModelDeploymentSpec,
    wanted: str,
    observed: Observed,
    policy: InstallationPolicy,
    now: datetime,
) -> Succession:
    assert known.stable is not None  # noqa: S101 - the callers' promise
    unfit = _misfit(owner, spec, known.stable, observed, policy)
    if unfit is None and spec.rollout.strategy is Strategy.IN_PLACE:
        # Within a second or two the agents are asked.
        return known
    # A newer operator goes on with what an older one, without rollouts, has begun.
    is_begun = known.candidate is not None and known.candidate.revision == wanted
    begun = known if is_begun else _with_candidate(known, owner, spec, wanted)
    assert begun.candidate is not None  # noqa: S101 - the line above
    rollout = begin(
        id_=begun.candidate.workload,
        revision=wanted,
        from_revision=known.stable.revision,
        policy=spec.rollout,
        replicas=spec.desired_replicas,
        misfit=unfit or "",
        now=now,
    )
    return replace(begun, rollout=rollout, candidate=_hosted(begun.candidate, known.stable, rollout))


def _misfit(
    owner: ModelDeployment,
    spec: ModelDeploymentSpec,
    stable: ServedRevision,
    observed: Observed,
    policy: InstallationPolicy,
) -> str | None:
    """Why pods cannot change in place, where it is asked for or may be what is left; None while that is open."""
    if spec.rollout.strategy not in (Strategy.AUTO, Strategy.IN_PLACE):
        return f"rollout.strategy is {spec.rollout.strategy}"
    return misfit(owner, spec, stable, observed, policy=policy)


def _go_on(
    known: Succession,
    owner: ModelDeployment,
    spec: ModelDeploymentSpec,
    wanted: str,
    observed: Observed,
    *,
    acknowledged: bool,
    policy: InstallationPolicy,
    now: datetime,
) -> Succession:
    """A rollout is under way."""
    stable, candidate, rollout = known.stable, known.candidate, known.rollout
    assert stable is not None and candidate is not None and rollout is not None  # noqa: S101, PT018 - the caller's promise
    if candidate.revision == wanted:
        candidate = pinned(candidate, spec.declared_digest, observed)
    elif stable.revision == wanted:
        rollout = roll_back(rollout, RollbackCause.REVERTED, "the spec asks for the stable revision again")
    else:
        rollout = roll_back(rollout, RollbackCause.SUPERSEDED, f"the spec asks for revision {wanted} now")
    before_any_turn = rollout.phase in NO_TRAFFIC_YET and not rollout.turned
    sight = look(
        rollout,
        spec=spec,
        stable=stable,
        candidate=candidate,
        wanted=wanted,
        listed=_listed(owner),
        observed=observed,
        acknowledged=acknowledged,
        through_gateways=splits_traffic(owner, observed, under_way=True),
        misfit=_misfit(owner, spec, stable, observed, policy) if before_any_turn else "",
        policy=policy,
        now=now,
    )
    after = advance(rollout, sight)
    return _after(replace(known, candidate=_hosted(candidate, stable, after)), after, now)


def _after(known: Succession, after: RolloutStatus, now: datetime) -> Succession:
    """What a step of a rollout that is under way means for the two revisions."""
    stable, candidate = known.stable, known.candidate
    assert stable is not None  # noqa: S101 - the callers' promise
    known = replace(known, rollout=after)
    match after.phase:
        case RolloutPhase.DRAINING:
            return replace(known, stable=candidate, candidate=None, past=with_past(known.past, stable.revision))
        case RolloutPhase.HALTED:
            # Should it be the one that was gone back to, nothing is there to go back to any more.
            back_to = None if known.rolled_back_to == after.revision else known.rolled_back_to
            rejected = _rejected(known.rejected, after, now)
            return replace(known, candidate=None, rejected=rejected, rolled_back_to=back_to)
        case _:
            return known


def _rejected(
    before: tuple[RejectedRevision, ...], rollout: RolloutStatus, now: datetime
) -> tuple[RejectedRevision, ...]:
    """With the revision, if it is one that has failed."""
    if rollout.cause is None or rollout.cause not in FAILURES:
        return before
    at = timestamp(now)
    entry = RejectedRevision(revision=rollout.revision, cause=rollout.cause, message=rollout.message, at=at)
    return with_rejected(before, entry)


def _ended(rollout: RolloutStatus | None, owner: ModelDeployment) -> RolloutStatus | None:
    """What is left to say of the last rollout: it is done once nothing is left with the revision before."""
    if rollout is None or rollout.phase is not RolloutPhase.DRAINING:
        return rollout
    draining = any(share.weight == 0 for share in owner.status.traffic)
    return rollout if draining else rollout.model_copy(update={"phase": RolloutPhase.DONE})
