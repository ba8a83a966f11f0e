"""The ConfigMap that tells a workload's agents what to serve."""

import json
from collections.abc import Mapping
from typing import Any

from conch.api import names, pod
from conch.api.assignment import AssignedModel, Assignment, Pin
from conch.api.model import ModelConfig, ServedModel
from conch.api.model_deployment import ModelDeployment
from conch.api.rollout import RolloutStatus
from conch.api.source_policy import SourcePolicy
from conch.api.spec import ModelDeploymentSpec
from conch.core.desired.object import DesiredObject, child
from conch.core.observed_child import ChildKind, WorkloadRecord


def assignment_of(owner: ModelDeployment, spec: ModelDeploymentSpec, revision: str) -> Assignment:
    """What the pods of this revision must have loaded."""
    return Assignment(
        revision=revision,
        **_served(spec.model, spec.model.name or owner.name),
        models=tuple(AssignedModel(**_served(further, further.name)) for further in spec.models),
    )


def _served(model: ServedModel, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "version": model.version,
        "source": model.source,
        "format": model.format,
        "config": model.config or ModelConfig(),
    }


def assignment_config_map(
    owner: ModelDeployment,
    home: str,
    record: WorkloadRecord,
    policy: SourcePolicy,
    pin: Pin | None,
    instances: int | None,
    change: Mapping[str, Any] | None = None,
) -> DesiredObject:
    """What the pods of `home` are assigned, under today's source policy; what is added here reaches running pods.

    `record` is of the revision that they serve, `change` of what they are changed to (`change_to`).
    """
    content = _assigned(record, policy, pin, instances)
    if change is not None:
        content["change"] = change
    return child(
        owner,
        ChildKind.CONFIG_MAP,
        names.workload_object(owner.name, home),
        labels=names.workload_labels(owner.name, home),
        fields={"data": {pod.ASSIGNMENT_FILE: json.dumps(content, indent=1, sort_keys=True)}},
    )


def change_to(
    record: WorkloadRecord, pin: Pin | None, rollout: RolloutStatus, policy: SourcePolicy, instances: int | None
) -> Mapping[str, Any]:
    """The revision that pods prepare, and serve when it is their turn (api.assignment.Change)."""
    return {
        "id": rollout.id,
        "assignment": _assigned(record, policy, pin, instances),
        "turn": rollout.turn,
        "pods": list(rollout.turned),
        "beside": rollout.beside,
    }


def _assigned(record: WorkloadRecord, policy: SourcePolicy, pin: Pin | None, instances: int | None) -> dict[str, Any]:
    content = {**json.loads(record.assignment_json), "sourcePolicy": policy.to_wire()}
    if pin is not None:
        content["pin"] = pin.to_wire()
    if instances is not None:
        content["instances"] = instances
    return content
