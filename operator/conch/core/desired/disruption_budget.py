"""The PodDisruptionBudget: a drained node takes one replica at a time, and the only one last."""

from conch.api import names
from conch.api.model_deployment import ModelDeployment
from conch.core.desired.object import DesiredObject, child
from conch.core.observed import ChildKind


def disruption_budget(owner: ModelDeployment, workload: str, *, keeps_one: bool) -> DesiredObject:
    """One pod of the workload that serves may be away; with `keeps_one` only if another is ready.

    Pods that are not ready never hold a drain up.
    """
    return child(
        owner,
        ChildKind.POD_DISRUPTION_BUDGET,
        names.disruption_budget(owner.name),
        labels=names.object_labels(owner.name),
        fields={
            "spec": {
                **({"minAvailable": 1} if keeps_one else {"maxUnavailable": 1}),
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": names.workload_selector(owner.name, workload)},
            }
        },
    )
