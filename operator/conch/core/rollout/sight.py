"""What a step of a rollout looks at."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from conch.api.rollout import CheckResult, Rollout, RolloutStatus
from conch.core.analysis.copies import NOTHING_COPIED, Copies
from conch.core.analysis.judgement import Verdict
from conch.core.rollout.capacity import Fleet


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """The cluster and the gateways, as far as a step depends on them."""

    policy: Rollout
    """As the spec has it now; only the steps are those that it had when the rollout began."""
    replicas: int
    """How many pods the object is to have."""
    fleet: Fleet
    candidate_started: int
    """Pods of the candidate that the kubelets call ready."""
    trouble: str = ""
    """Why a pod of the candidate does not serve and will not by itself; empty if none is in trouble."""
    trouble_lasts: bool = True
    """Whether that did not pass when it was tried again."""
    no_room: str = ""
    """Why a pod of the candidate finds no node; empty if each has one."""
    no_room_for_long: bool = False
    """Whether it has waited for longer than an automatic rollout waits for room."""
    golden_failure: str = ""
    """What a pod of the candidate answered otherwise than recorded."""
    verdict: Verdict = Verdict.PASS
    """Of all checks together, in the window of this step; of the copied requests while these are compared."""
    copies: Copies = NOTHING_COPIED
    """What was counted of them by now."""
    checks: tuple[CheckResult, ...] = ()
    superseded: bool = False
    """Whether the spec asks for neither of the two revisions."""
    acknowledged: bool
    """Whether every gateway does what the status asks for."""
    through_gateways: bool = True
    """Whether the traffic can be split at all."""
    misfit: str | None = ""
    """Why the pods that there are cannot change to the candidate in place; empty if they can, None while it is open."""
    refused: str = ""
    """Why a pod that was to change in place cannot, in its agent's words."""
    stable_lost_patience: timedelta
    """How long the stable revision may be without a ready pod until a candidate that runs takes over without more ado.

    Its requests are answered by the candidate from the first moment: gateways send to no workload without servers."""
    now: datetime

    def holds(self, rollout: RolloutStatus) -> bool:
        """Whether somebody wants it to go no further for now."""
        return rollout.paused or self.policy.paused
