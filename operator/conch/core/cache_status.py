"""What the model cache was good for, for people: by what the agents say, and by what has become of the Deployment."""

from conch.api import names
from conch.api.agent_report import CacheOutcome
from conch.api.status import CacheStatus
from conch.api.types import bounded
from conch.core.cache_fallback import claim_of
from conch.core.situation import Situation


def cache_status(situation: Situation) -> CacheStatus | None:
    """Of the wanted revision's pods; None where they were not created with a cache."""
    wanted, owner = situation.succession.wanted, situation.owner
    if wanted is None:
        return None
    record = situation.observed.record_of(owner.uid, names.workload_object(owner.name, wanted.workload))
    if record is None or (claim := claim_of(record)) is None:
        return None
    live = situation.observed.deployment_of(wanted.workload)
    reports = [pod.report.cache for pod in situation.pods if pod.report and pod.report.cache]
    outcomes = [report.outcome for report in reports]
    # Of several the first by name: whoever speaks first would make another message each time.
    said = min((report.message for report in reports if report.message), default="")
    if live is not None and live.belongs_to(owner.uid) and not live.mounts_cache:
        said = (
            f"The claim {claim} kept pods from being scheduled, so those of this revision do without the model cache. "
            "Have it made or mended: the next revision tries again."
        )
    return CacheStatus(
        hit=outcomes.count(CacheOutcome.HIT),
        filled=outcomes.count(CacheOutcome.FILLED),
        bypassed=outcomes.count(CacheOutcome.BYPASSED),
        message=bounded(said),
    )
