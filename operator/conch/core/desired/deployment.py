"""The Deployment of a workload."""

import json

from conch.api import names
from conch.api.model_deployment import ModelDeployment
from conch.core.desired.object import DesiredObject, child
from conch.core.observed import ChildKind, WorkloadRecord


def deployment(owner: ModelDeployment, record: WorkloadRecord, replicas: int) -> DesiredObject:
    """The Deployment with the pod template that the workload was created with."""
    return child(
        owner,
        ChildKind.DEPLOYMENT,
        names.workload_object(owner.name, record.workload),
        labels=names.workload_labels(owner.name, record.workload),
        fields={
            "spec": {
                "replicas": replicas,
                # The template of a workload never changes; should it ever, a GPU that is not there must not be needed.
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
                "revisionHistoryLimit": 1,
                "selector": {"matchLabels": names.workload_selector(owner.name, record.workload)},
                "template": json.loads(record.pod_template_json),
            }
        },
    )
