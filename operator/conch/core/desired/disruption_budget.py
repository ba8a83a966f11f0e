"""The PodDisruptionBudgets: a drained node takes one replica at a time, and the only one last."""

from typing import Final

from conch.api import names
from conch.api.model_deployment import ModelDeployment
from conch.core.desired.object import DesiredObject, child
from conch.core.evictions import Evictions
from conch.core.observed_child import ChildKind

_LIMIT: Final = {
    Evictions.ONE_AT_A_TIME: {"maxUnavailable": 1},
    Evictions.ONE_STAYS: {"minAvailable": 1},
    # Of two, one of which never comes, a maximum of one is away already.
    Evictions.ANY: {"minAvailable": 0},
    Evictions.NONE: {"maxUnavailable": 0},
}


def disruption_budget(
    owner: ModelDeployment, workload: str, *, evictions: Evictions, is_candidate: bool = False
) -> DesiredObject:
    """Of the pods of a workload that serves.

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
                **_LIMIT[evictions],
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": names.workload_selector(owner.name, workload)},
            }
        },
    )
