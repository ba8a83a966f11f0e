"""The PodDisruptionBudgets: a drained node takes one replica at a time, and the only one last."""

from conch.api import names
from conch.api.model_deployment import ModelDeployment
from conch.core.desired.object import DesiredObject, child
from conch.core.observed import ChildKind


def disruption_budget(
    owner: ModelDeployment, workload: str, *, keeps_one: bool, is_candidate: bool = False
) -> DesiredObject:
    """One pod of a workload that serves may be away; with `keeps_one` only if another is ready.

    Pods that are not ready never hold a drain up. So each of two revisions has a budget of its own: in one for both,
    those of the new one that wait for room would count as away. A candidate's is named after its workload.
    """
    name = names.workload_object(owner.name, workload) if is_candidate else names.disruption_budget(owner.name)
    return child(
        owner,
        ChildKind.POD_DISRUPTION_BUDGET,
        name,
        labels=names.object_labels(owner.name),
        fields={
            "spec": {
                **({"minAvailable": 1} if keeps_one else {"maxUnavailable": 1}),
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": names.workload_selector(owner.name, workload)},
            }
        },
    )
