"""Whether a workload's pods mount the model cache: as they were created, unless it keeps them from being scheduled.

One way, and derived from what is there: a Deployment that has lost the cache never gets it back, so nothing moves to
and fro. Its healthy pods are replaced one after the other, for a Deployment has one template. The next workload begins
with the cache again.
"""

import json
from datetime import datetime, timedelta
from typing import Any, Final

from conch.api.model_deployment import ModelDeployment
from conch.core.desired.model_cache import CACHE_VOLUME, cache_claim, has_other_volumes, without_cache
from conch.core.observed import Observed
from conch.core.observed_child import WorkloadRecord
from conch.core.observed_pod import ObservedPod
from conch.core.waiting_for_volume import names_claim, names_no_claim, waiting_for_volume

MISSING_PATIENCE: Final = timedelta(seconds=10)
"""For a claim that is not there: most likely nobody makes it just now."""
PATIENCE: Final = timedelta(seconds=60)
"""For whatever else the scheduler says of volumes: one may be made just now, and it may be another one's fault."""


def claim_of(record: WorkloadRecord) -> str | None:
    """The claim of the cache that a workload was created with."""
    if f'"{CACHE_VOLUME}"' not in record.pod_template_json:
        # Parsing takes far longer than looking.
        return None
    return cache_claim(json.loads(record.pod_template_json))


def template_of(owner: ModelDeployment, record: WorkloadRecord, observed: Observed, now: datetime) -> dict[str, Any]:
    """The pod template that the workload's Deployment has from now on."""
    template: dict[str, Any] = json.loads(record.pod_template_json)
    claim = cache_claim(template)
    if claim is None or mounts_cache(owner, record, claim, observed, now):
        return template
    return without_cache(template)


def mounts_cache(owner: ModelDeployment, record: WorkloadRecord, claim: str, observed: Observed, now: datetime) -> bool:
    """Whether a workload that was created with the cache goes on with it."""
    live = observed.deployment_of(record.workload)
    if live is not None and live.belongs_to(owner.uid) and not live.mounts_cache:
        return False
    waits = _patience_left(record, claim, observed, now)
    return waits is None or waits > timedelta()


def decided_after(
    owner: ModelDeployment, records: tuple[WorkloadRecord, ...], observed: Observed, now: datetime
) -> timedelta | None:
    """How long until a workload goes on without the cache, should its pods go on waiting; None: none waits for it."""
    left = [
        wait
        for record in records
        if (claim := claim_of(record)) is not None
        and mounts_cache(owner, record, claim, observed, now)
        and (wait := _patience_left(record, claim, observed, now)) is not None
    ]
    return min(left, default=None)


def may_be_of_cache(record: WorkloadRecord, claim: str, message: str) -> bool:
    """Whether the scheduler's words about a volume are, or can be, about the cache's claim."""
    if names_claim(message, claim):
        return True
    return names_no_claim(message) and not has_other_volumes(json.loads(record.pod_template_json), claim)


def _patience_left(record: WorkloadRecord, claim: str, observed: Observed, now: datetime) -> timedelta | None:
    left = [
        (MISSING_PATIENCE if names_claim(message, claim) else PATIENCE) - _age(pod, now)
        for pod, message in waiting_for_volume(observed.pods_at(record.workload))
        if may_be_of_cache(record, claim, message)
    ]
    return min(left, default=None)


def _age(pod: ObservedPod, now: datetime) -> timedelta:
    return now - datetime.fromisoformat(pod.created) if pod.created else timedelta()
