"""What there is to tell of a rollout, from the object alone. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from conch.api.model_deployment import InvalidSpec, ModelDeployment
from conch.api.rollout import Pause, RejectedRevision, RollbackCause, RolloutPhase, RolloutStatus, Step
from conch.api.status import ConditionStatus, ConditionType
from conch.core.analysis.judgement import Verdict
from conch.core.autoscaling import autoscaling_of
from conch.core.revision import revision_of
from conch.core.rollout.machine import is_waiting_for_promotion
from conch.core.rollout.phases import NO_TRAFFIC_YET, UNDER_WAY

_BACK: Final = (RolloutPhase.ROLLING_BACK, RolloutPhase.HALTED)
_ALL: Final = 100


class Place(StrEnum):
    """Where a step is, seen from where the rollout is."""

    DONE = "done"
    SKIPPED = "skipped"
    HERE = "here"
    ENDED = "ended here"
    """It went back from there."""
    TO_COME = "to come"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """A share of the traffic; the last row is all of it."""

    place: Place
    weight: int
    pause: str = ""
    """What it waits for besides its checks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodsRow:
    """The pods of one revision. `ready` is None where the status does not tell it."""

    role: str
    version: int
    revision: str
    workload: str
    wanted: int
    ready: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Something that has to come before it goes on, and by when where that is a time."""

    words: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One object, looked at once."""

    owner: ModelDeployment
    observed: bool
    """Whether the operator has looked at the spec as it is now; if not, all the rest may be old."""
    rollout: RolloutStatus | None
    """The one that is under way, or the last one."""
    from_revision: str
    to_revision: str
    """With their versions where these are known."""
    steps: tuple[StepRow, ...]
    pods: tuple[PodsRow, ...]
    waits: tuple[Wait, ...]
    trouble: str
    """Why the object is not ready, as its condition says; empty if it is."""
    given_up: RejectedRevision | None
    """The revision that is to serve, where that was rolled back, so that nothing happens any more."""

    @property
    def suspended(self) -> bool:
        """Whether nothing is to run."""
        return not isinstance(self.owner.spec, InvalidSpec) and self.owner.spec.desired_replicas == 0

    @property
    def exit_code(self) -> int | None:
        """0: the revision that is to serve has all the traffic; 1: it was rolled back; None: that is open yet."""
        stable, candidate = self.owner.status.stable, self.owner.status.candidate
        if not self.observed or self.owner.deleting:
            return None
        if stable is None:
            return 0 if self.suspended else None
        if self.given_up:
            return 1
        if self.rollout is None:
            return None if candidate else 0
        if self.rollout.phase is RolloutPhase.HALTED:
            # What superseded it comes next.
            return None if self.rollout.cause is RollbackCause.SUPERSEDED else 1
        return 0 if self.rollout.phase is RolloutPhase.DONE else None


def look(owner: ModelDeployment) -> Progress:
    """See how far the object's rollout is."""
    rollout, status = owner.status.rollout, owner.status
    asked = None if isinstance(owner.spec, InvalidSpec) else revision_of(owner.spec)
    wanted = status.rolled_back_to or asked
    ready = status.condition(ConditionType.READY)
    not_ready = ready is not None and ready.status is not ConditionStatus.TRUE
    return Progress(
        owner=owner,
        observed=0 < status.observed_generation >= owner.generation,
        rollout=rollout,
        from_revision=_named(owner, rollout.from_revision, asked) if rollout else "",
        to_revision=_named(owner, rollout.revision, asked) if rollout else "",
        steps=tuple(_steps(rollout)) if rollout else (),
        pods=tuple(_pods(owner)),
        waits=tuple(_waits(owner, rollout)) if rollout and rollout.phase in UNDER_WAY else (),
        trouble=": ".join(filter(None, (ready.reason, ready.message))) if ready and not_ready else "",
        given_up=None
        if status.candidate
        else next((rejected for rejected in status.rejected if rejected.revision == wanted), None),
    )


def _named(owner: ModelDeployment, revision: str, asked: str | None) -> str:
    """A revision with its version; of one that is neither served nor asked for any more, the status tells none."""
    served = (owner.status.stable, owner.status.candidate)
    version = next((each.version for each in served if each and each.revision == revision), None)
    if version is None and revision == asked and not isinstance(owner.spec, InvalidSpec):
        version = owner.spec.model.version
    return f"{revision} (version {version})" if version else revision


def _steps(rollout: RolloutStatus) -> Iterator[StepRow]:
    for index, step in enumerate((*rollout.steps, None)):
        pause = _pause(step) if step else ""
        yield StepRow(place=_place(rollout, index), weight=step.weight if step else _ALL, pause=pause)


def _pause(step: Step) -> str:
    if step.pause is Pause.UNTIL_PROMOTED:
        return "until promoted"
    return f"{step.pause_seconds} s" if step.pause_seconds else ""


def _place(rollout: RolloutStatus, index: int) -> Place:
    if rollout.phase in (RolloutPhase.DRAINING, RolloutPhase.DONE):
        return Place.DONE
    if index < rollout.step:
        return Place.SKIPPED if rollout.phase in NO_TRAFFIC_YET else Place.DONE
    if index > rollout.step or rollout.phase in NO_TRAFFIC_YET:
        return Place.TO_COME
    return Place.ENDED if rollout.phase in _BACK else Place.HERE


def _pods(owner: ModelDeployment) -> Iterator[PodsRow]:
    status = owner.status
    rollout, stable, candidate = status.rollout, status.stable, status.candidate
    # The status counts the pods of both together, and those of the newer one.
    of_candidate = status.pods.ready if candidate else 0
    if stable:
        yield PodsRow(
            role="stable",
            version=stable.version,
            revision=stable.revision,
            workload=stable.workload,
            wanted=rollout.stable_replicas if rollout and candidate else status.desired_replicas,
            ready=max(0, status.ready_replicas - of_candidate),
        )
    if candidate:
        yield PodsRow(
            role="candidate",
            version=candidate.version,
            revision=candidate.revision,
            workload=candidate.workload,
            wanted=rollout.candidate_replicas if rollout and stable else status.desired_replicas,
            ready=status.pods.ready,
        )


def _waits(owner: ModelDeployment, rollout: RolloutStatus) -> Iterator[Wait]:
    policy = None if isinstance(owner.spec, InvalidSpec) else owner.spec.rollout
    if owner.status.desired_replicas == 0:
        # The autoscaler, too: it wants one for a rollout, as soon as it sees that there is one.
        is_autoscaled = autoscaling_of(owner) is not None
        yield Wait(words=f"replicas are wanted again (now none are{', for nobody asked' if is_autoscaled else ''})")
    if rollout.phase is RolloutPhase.ROLLING_BACK:
        yield Wait(words="the stable revision's pods have taken the traffic back")
        return
    if rollout.paused:
        yield Wait(words=f"somebody resumes it: conch resume {owner.name}")
    if policy and policy.paused:
        yield Wait(words="spec.rollout.paused is false again")
    if is_waiting_for_promotion(rollout):
        yield Wait(words=f"somebody promotes it: conch promote {owner.name}")
    if undecided := [check.name for check in rollout.checks if check.verdict != Verdict.PASS]:
        yield Wait(words=f"checks pass ({', '.join(undecided)})")
    if rollout.deadline:
        yield Wait(words="more of its pods serve, or it is rolled back", until=datetime.fromisoformat(rollout.deadline))
    if rollout.observed_since is None or rollout.promoted > rollout.step:
        return
    since = datetime.fromisoformat(rollout.observed_since)
    if rollout.phase is RolloutPhase.BAKING and policy:
        yield Wait(
            words="the old pods need not be kept warm any more",
            until=since + timedelta(seconds=policy.effective_keep_warm_seconds),
        )
    elif rollout.step < len(rollout.steps) and (seconds := rollout.steps[rollout.step].pause_seconds):
        yield Wait(words="the step's time is over", until=since + timedelta(seconds=seconds))
