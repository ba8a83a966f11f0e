"""The ControllerRevision in which a workload remembers what it was created as."""

from typing import Any

from conch.api import names
from conch.api.model_deployment import ModelDeployment
from conch.api.spec import ModelDeploymentSpec
from conch.core.desired.assignment import assignment_of
from conch.core.desired.object import DesiredObject, child
from conch.core.desired.pod_template import pod_template
from conch.core.observed import ChildKind, WorkloadRecord
from conch.core.policy import InstallationPolicy


def new_record(
    owner: ModelDeployment, spec: ModelDeploymentSpec, revision: str, workload: str, policy: InstallationPolicy
) -> WorkloadRecord:
    """A workload that is to be created from this spec, under today's defaults."""
    assignment = assignment_of(owner, spec, revision).to_wire()
    del assignment["sourcePolicy"]
    return WorkloadRecord(
        workload=workload,
        revision=revision,
        version=spec.model.version,
        pod_template=pod_template(owner, spec, workload, policy),
        assignment=assignment,
    )


def workload_record(owner: ModelDeployment, record: WorkloadRecord) -> DesiredObject:
    """The ControllerRevision that holds the record."""
    return child(
        owner,
        ChildKind.CONTROLLER_REVISION,
        names.workload_object(owner.name, record.workload),
        labels=names.workload_labels(owner.name, record.workload),
        fields={"data": record_data(record), "revision": 1},
    )


def record_data(record: WorkloadRecord) -> dict[str, Any]:
    """The record as it is stored."""
    return {
        "workload": record.workload,
        "revision": record.revision,
        "version": record.version,
        "podTemplate": dict(record.pod_template),
        "assignment": dict(record.assignment),
    }


def read_record(data: dict[str, Any]) -> WorkloadRecord:
    """The record from what is stored; raises KeyError for data that is none."""
    return WorkloadRecord(
        workload=data["workload"],
        revision=data["revision"],
        version=data["version"],
        pod_template=data["podTemplate"],
        assignment=data["assignment"],
    )
