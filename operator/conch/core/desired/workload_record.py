"""The ControllerRevision in which a workload remembers what it was created as."""

import json
from collections.abc import Mapping
from typing import Any

from conch.api import names
from conch.api.model_deployment import ModelDeployment
from conch.api.spec import ModelDeploymentSpec
from conch.core.desired.assignment import assignment_of
from conch.core.desired.object import DesiredObject, child
from conch.core.desired.pod_template import pod_template
from conch.core.observed_child import ChildKind, WorkloadRecord
from conch.core.policy import InstallationPolicy
from conch.core.revision import revision_part


def new_record(
    owner: ModelDeployment,
    spec: ModelDeploymentSpec,
    revision: str,
    *,
    workload: str,
    number: int,
    policy: InstallationPolicy,
) -> WorkloadRecord:
    """A workload that is to be created from this spec, under today's defaults."""
    assignment = assignment_of(owner, spec, revision).to_wire()
    del assignment["sourcePolicy"]
    return WorkloadRecord(
        workload=workload,
        number=number,
        revision=revision,
        version=spec.model.version,
        spec_json=_text(revision_part(spec)),
        pod_template_json=pod_template_json(owner, spec, workload, policy),
        assignment_json=_text(assignment),
    )


def pod_template_json(
    owner: ModelDeployment, spec: ModelDeploymentSpec, workload: str, policy: InstallationPolicy
) -> str:
    """The pod template that a workload made from this spec would have now, as its record would hold it."""
    return _text(pod_template(owner, spec, workload, policy))


def workload_record(owner: ModelDeployment, record: WorkloadRecord) -> DesiredObject:
    """The ControllerRevision that holds the record."""
    return child(
        owner,
        ChildKind.CONTROLLER_REVISION,
        names.workload_object(owner.name, record.workload),
        labels=names.workload_labels(owner.name, record.workload),
        fields={"data": record_data(record), "revision": record.number or 1},
    )


def record_data(record: WorkloadRecord) -> dict[str, Any]:
    """The record as it is stored. It can never be changed: what an older operator wrote stays without what is newer."""
    newer = {"number": record.number, "spec": record.spec_json} if record.number else {}
    return newer | {
        "workload": record.workload,
        "revision": record.revision,
        "version": record.version,
        "podTemplate": record.pod_template_json,
        "assignment": record.assignment_json,
    }


def read_record(data: dict[str, Any]) -> WorkloadRecord:
    """The record from what is stored; raises KeyError, TypeError or ValueError for data that is none."""
    # An older operator kept no spec and no number; such a revision cannot be gone back to.
    is_older = "number" not in data and "spec" not in data
    spec = "{}" if is_older else data["spec"]
    for text in (spec, data["podTemplate"], data["assignment"]):
        if not isinstance(json.loads(text), dict):
            raise TypeError("not a JSON object")
    return WorkloadRecord(
        workload=data["workload"],
        number=0 if is_older else data["number"],
        revision=data["revision"],
        version=data["version"],
        spec_json=spec,
        pod_template_json=data["podTemplate"],
        assignment_json=data["assignment"],
    )


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))
