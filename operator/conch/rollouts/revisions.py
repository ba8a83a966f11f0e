"""The revisions of an object that are known: by the records of their workloads, and by its status. Pure."""

from collections.abc import Iterable, Iterator
from enum import StrEnum

from conch.api import names
from conch.api.model_deployment import ModelDeployment
from conch.api.rollout import RejectedRevision, RollbackCause
from conch.api.status import ServedRevision
from conch.api.types import ApiModel
from conch.core.desired.workload_record import read_record
from conch.kube.client import Json


class Standing(StrEnum):
    """What a revision is now."""

    STABLE = "stable"
    """It has the traffic."""
    CANDIDATE = "candidate"
    """It is being brought up."""
    REJECTED = "rejected"
    """It was rolled back, and is not tried again by itself."""
    EARLIER = "earlier"


class RevisionRow(ApiModel):
    """One workload that a revision had, or a rejected revision of which nothing else is left.

    `conch rollout history NAME --output json` prints a list of these in camelCase: fields are added, never renamed.
    Null is what is not known any more.
    """

    revision: str
    version: int | None
    workload: str | None
    number: int | None
    """The how manieth workload of the object it is."""
    standing: Standing
    cause: RollbackCause | None
    message: str
    created: str | None
    rejected_at: str | None


def history(owner: ModelDeployment, records: Iterable[Json]) -> tuple[RevisionRow, ...]:
    """All of them, the newest first; `records` are the ControllerRevisions with the object's label."""
    rows = [*_recorded(owner, records)]
    served = (owner.status.stable, owner.status.candidate)
    rows += [
        _row(owner, each.revision, each.version, each.workload)
        for each in served
        if each and all(row.workload != each.workload for row in rows)
    ]
    rows += [
        _row(owner, each.revision)
        for each in owner.status.rejected
        if all(row.revision != each.revision for row in rows)
    ]
    return tuple(sorted(rows, key=_age, reverse=True))


def _age(row: RevisionRow) -> tuple[str, int]:
    # What has no date at all is served, and its record is about to be written. Dates have no fractions of a second.
    return row.created or row.rejected_at or "~", row.number or 0


def _recorded(owner: ModelDeployment, records: Iterable[Json]) -> Iterator[RevisionRow]:
    for body in records:
        metadata = body["metadata"]
        controllers = (each for each in metadata.get("ownerReferences", ()) if each.get("controller"))
        if all(controller["uid"] != owner.uid for controller in controllers):
            # A stranger's, or an earlier object's of the same name.
            continue
        try:
            record = read_record(body["data"])
        except (KeyError, TypeError, ValueError):
            continue
        yield _row(
            owner,
            record.revision,
            record.version,
            record.workload,
            number=record.number,
            created=metadata["creationTimestamp"],
        )


def _row(
    owner: ModelDeployment,
    revision: str,
    version: int | None = None,
    workload: str | None = None,
    *,
    number: int | None = None,
    created: str | None = None,
) -> RevisionRow:
    rejected = next((each for each in owner.status.rejected if each.revision == revision), None)
    standing = _standing(owner, workload, rejected)
    shown = rejected if standing is Standing.REJECTED else None
    return RevisionRow(
        revision=revision,
        version=version,
        workload=workload,
        number=number,
        standing=standing,
        cause=shown.cause if shown else None,
        message=shown.message if shown else "",
        created=created,
        rejected_at=shown.at if shown else None,
    )


def _standing(owner: ModelDeployment, workload: str | None, rejected: RejectedRevision | None) -> Standing:
    def is_of(served: ServedRevision | None) -> bool:
        return served is not None and served.workload == workload

    if is_of(owner.status.stable):
        return Standing.STABLE
    if is_of(owner.status.candidate):
        return Standing.CANDIDATE
    return Standing.REJECTED if rejected else Standing.EARLIER


def selector(name: str) -> str:
    """What selects the records of an object of this name."""
    return f"{names.LABEL_MODEL_DEPLOYMENT}={name}"
