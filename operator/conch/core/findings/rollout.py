"""Checks of how a new revision takes over."""

from collections.abc import Mapping
from typing import Final

from conch.api.analysis import GoldenSetPolicy
from conch.api.reasons import Reason
from conch.api.rollout import RejectedRevision, RollbackCause, RolloutPhase, RolloutStatus
from conch.api.spec import ModelDeploymentSpec
from conch.core.analysis.judgement import Verdict
from conch.core.finding import Finding, progressing, stalled
from conch.core.rollout.machine import goal_of, is_waiting_for_promotion
from conch.core.rollout.verified import golden_error, golden_failure, golden_policy
from conch.core.situation import Situation

_REASONS: Final[Mapping[RollbackCause, Reason]] = {
    RollbackCause.CANDIDATE_FAILED: Reason.CANDIDATE_FAILED,
    RollbackCause.DEADLINE_EXCEEDED: Reason.PROGRESS_DEADLINE_EXCEEDED,
    RollbackCause.GOLDEN_SET_FAILED: Reason.GOLDEN_SET_FAILED,
    RollbackCause.ANALYSIS_FAILED: Reason.ANALYSIS_FAILED,
    RollbackCause.SHADOW_DISAGREED: Reason.SHADOW_DISAGREED,
    RollbackCause.ABORTED: Reason.ROLLOUT_ABORTED,
}


def revision_is_not_rejected(situation: Situation) -> Finding | None:
    """The revision that the spec asks for was not rolled back."""
    owner, stable = situation.owner, situation.succession.stable
    if situation.revision is None or stable is None or stable.revision == situation.revision:
        return None
    if situation.succession.candidate is not None:
        return None
    rejected = next((each for each in situation.succession.rejected if each.revision == situation.revision), None)
    if rejected is None:
        return None
    return stalled(
        _REASONS[rejected.cause],
        f"Revision {rejected.revision} was rolled back: {_sentence(rejected)} Version {stable.version} (revision "
        f"{stable.revision}) serves. Apply another spec, or have it tried again: conch retry {owner.name}",
    )


def the_way_back_is_over(situation: Situation) -> Finding | None:
    """No revision is being rolled back."""
    rollout = situation.succession.under_way
    if rollout is None or rollout.phase is not RolloutPhase.ROLLING_BACK or situation.desired_replicas == 0:
        return None
    return progressing(
        Reason.ROLLING_BACK,
        f"Revision {rollout.revision} is rolled back ({rollout.cause}: {rollout.message}); {rollout.weight} % of the "
        "requests still go to it.",
    )


def the_golden_set_passes(situation: Situation) -> Finding | None:
    """The model answers as its golden.json records."""
    if situation.succession.candidate is None:
        return _nobody_is_held_back(situation)
    assert isinstance(situation.spec, ModelDeploymentSpec)  # noqa: S101 - an earlier check's promise
    golden = golden_policy(situation.spec)
    if failure := golden_failure(situation.pods, golden):
        return stalled(Reason.GOLDEN_SET_FAILED, failure)
    error = golden_error(situation.pods, golden)
    return stalled(Reason.GOLDEN_SET_ERROR, error) if error else None


def _nobody_is_held_back(situation: Situation) -> Finding | None:
    """Of a revision that has proven itself: each of its pods is sent requests only once it answers as recorded."""
    stable = situation.succession.stable
    staffing = situation.routing.staffings.get(stable.workload) if stable else None
    pods = [pod for pod in situation.pods if staffing and pod.ready and pod.name in staffing.held]
    if failure := golden_failure(pods, GoldenSetPolicy.IF_PRESENT):
        return stalled(
            Reason.GOLDEN_SET_FAILED,
            f"{failure} Others of this revision do: it gets no requests. Look at its node and GPU, or delete the pod.",
        )
    if error := golden_error(pods, GoldenSetPolicy.IF_PRESENT):
        return stalled(Reason.GOLDEN_SET_ERROR, error)
    if pods:
        return progressing(Reason.LOADING, f"Pod {pods[0].name} gets requests once its golden set was replayed.")
    return None


def the_rollout_is_over(situation: Situation) -> Finding | None:
    """The new revision has all of the traffic for good."""
    rollout = situation.succession.under_way
    if rollout is None or situation.desired_replicas == 0:
        # Suspended: it goes on where it was once there are pods.
        return None
    assert isinstance(situation.spec, ModelDeploymentSpec)  # noqa: S101 - an earlier check's promise
    steps = len(rollout.steps)
    where = f"step {rollout.step + 1} of {steps}" if rollout.step < steps else rollout.phase.value.lower()
    share = f"{rollout.weight} % of the requests go to revision {rollout.revision} ({rollout.strategy}, {where})"
    if situation.spec.rollout.paused:
        return progressing(Reason.ROLLOUT_PAUSED, f"{share}. Paused; to go on, set spec.rollout.paused to false.")
    if rollout.paused:
        return progressing(Reason.ROLLOUT_PAUSED, f"{share}. Paused; resume: conch resume {situation.owner.name}")
    if rollout.phase is RolloutPhase.SHADOWING and rollout.shadow is not None:
        told = _undecided(rollout) or "What was compared is enough"
        hint = f"conch promote {situation.owner.name}"
        return progressing(
            Reason.SHADOWING,
            f"{rollout.shadow.share.percent} % of the requests are copied to revision {rollout.revision}, which gets "
            f"none itself. {told}. To go on without: {hint}",
        )
    if is_waiting_for_promotion(rollout):
        hint = f"conch promote {situation.owner.name}"
        return progressing(Reason.AWAITING_PROMOTION, f"{share}. It waits for somebody to promote it: {hint}")
    if situation.spec.rollout.analysis is not None and (undecided := _undecided(rollout)):
        return progressing(Reason.ANALYSING, f"{share}. {undecided}")
    on_its_way = "" if rollout.observed_since else f", on the way to {goal_of(rollout)} %"
    return progressing(Reason.ROLLING_OUT, f"{share}{on_its_way}.")


def _undecided(rollout: RolloutStatus) -> str:
    """What the first check that has not passed says."""
    if rollout.observed_since is None and rollout.phase is not RolloutPhase.SHADOWING:
        return ""
    open_ = (each for each in rollout.checks if each.verdict not in (Verdict.PASS, Verdict.FAIL))
    return next((f"{each.name}: {each.message}" for each in open_), "")


def _sentence(rejected: RejectedRevision) -> str:
    text = rejected.message.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."
