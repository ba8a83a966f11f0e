"""The revisions of an object that are remembered: in the records of its workloads, also of those that are no more."""

import json
from collections.abc import Set
from typing import Final, Protocol

from pydantic import ValidationError

from conch.api import names
from conch.api.model_deployment import ModelDeployment
from conch.api.rollout import RejectedRevision
from conch.api.spec import ModelDeploymentSpec
from conch.api.status import ServedRevision
from conch.core.observed import Observed
from conch.core.observed_child import ObservedRecord, WorkloadRecord
from conch.core.revision import revision_of, with_revision_part

PAST_MOST: Final = 50
"""As many as rollout.revisionHistoryLimit may keep."""


def remembered(owner: ModelDeployment, observed: Observed) -> tuple[WorkloadRecord, ...]:
    """What each workload was created as, newest first; a revision that had several is there once."""
    records = [
        child.record
        for child in observed.children.values()
        if isinstance(child, ObservedRecord) and child.belongs_to(owner.uid) and not child.deleting
    ]
    found: dict[str, WorkloadRecord] = {}
    for record in sorted(records, key=lambda record: record.number, reverse=True):
        found.setdefault(record.revision, record)
    return tuple(found.values())


class Revisions(Protocol):
    """What a status, or the next one, says of an object's revisions."""

    @property
    def stable(self) -> ServedRevision | None:
        """The one that serves."""

    @property
    def candidate(self) -> ServedRevision | None:
        """The one that is brought up."""

    @property
    def rejected(self) -> tuple[RejectedRevision, ...]:
        """Those that are given up."""

    @property
    def past(self) -> tuple[str, ...]:
        """Those that were stable before, newest first."""


def to_go_back_to(records: tuple[WorkloadRecord, ...], revisions: Revisions) -> tuple[str, ...]:
    """Revisions that were the stable one before, newest first, but for those that are given up."""
    known = {record.revision for record in records}
    others = {served.revision for served in (revisions.stable, revisions.candidate) if served}
    others |= {rejected.revision for rejected in revisions.rejected}
    return tuple(revision for revision in revisions.past if revision in known - others)


def with_past(past: tuple[str, ...], revision: str) -> tuple[str, ...]:
    """With a revision that was the stable one until now."""
    return (revision, *(each for each in past if each != revision))[:PAST_MOST]


def kept_records(
    owner: ModelDeployment, records: tuple[WorkloadRecord, ...], past: tuple[str, ...], limit: int
) -> Set[str]:
    """Names of the ControllerRevisions that stay although their workloads are no more: the newest of the past."""
    newest = past[:limit]
    return {names.workload_object(owner.name, each.workload) for each in records if each.revision in newest}


def spec_with(
    revision: str, spec: ModelDeploymentSpec, records: tuple[WorkloadRecord, ...]
) -> ModelDeploymentSpec | None:
    """The spec with another revision in the place of its own; None if that is not remembered, or cannot be read."""
    record = next((record for record in records if record.revision == revision), None)
    if record is None:
        return None
    try:
        back = with_revision_part(spec, json.loads(record.spec_json))
    except ValidationError:
        return None
    return back if revision_of(back) == revision else None
