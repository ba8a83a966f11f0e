"""The Deployment of a workload."""

from collections.abc import Mapping
from typing import Any

from conch.api import names
from conch.api.model_deployment import ModelDeployment
from conch.core.desired.object import DesiredObject, child
from conch.core.observed_child import ChildKind, WorkloadRecord


def deployment(
    owner: ModelDeployment, record: WorkloadRecord, template: Mapping[str, Any], replicas: int
) -> DesiredObject:
    """The Deployment with the pod template that the workload was created with, or that without the model cache."""
    queue = template["metadata"]["labels"].get(names.LABEL_QUEUE)
    return child(
        owner,
        ChildKind.DEPLOYMENT,
        names.workload_object(owner.name, record.workload),
        labels=names.workload_labels(owner.name, record.workload) | names.queue_labels(queue),
        fields={
            "spec": {
                "replicas": replicas,
                # A template changes only when it loses the model cache: a GPU that is not there must not be needed.
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
                "revisionHistoryLimit": 1,
                "selector": {"matchLabels": names.workload_selector(owner.name, record.workload)},
                "template": template,
            }
        },
    )
