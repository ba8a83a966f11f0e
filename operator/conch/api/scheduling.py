"""`spec.scheduling`: where the pods may run."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from conch.api.cel import Rule, rules
from conch.api.types import ApiModel, DnsName, LabelValue, QualifiedName

QueueName = Annotated[
    str,
    Field(
        min_length=1,
        # It is a label's value, too.
        max_length=63,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
    ),
]


class Toleration(ApiModel):
    """A taint that the pods may live with (as in a pod's spec)."""

    key: Annotated[str | None, Field(max_length=317)] = None
    operator: Annotated[str, Field(max_length=8, pattern="^(Exists|Equal)$")] = "Equal"
    value: LabelValue | None = None
    effect: Annotated[str | None, Field(max_length=16, pattern="^(NoSchedule|PreferNoSchedule|NoExecute)$")] = None
    toleration_seconds: Annotated[int | None, Field(ge=0, le=2**31 - 1)] = None


class WhenUnsatisfiable(StrEnum):
    """What becomes of a pod for which there is no place that keeps the spread."""

    DO_NOT_SCHEDULE = "DoNotSchedule"
    SCHEDULE_ANYWAY = "ScheduleAnyway"


class TopologySpread(ApiModel):
    """How the pods of one revision are spread over the nodes."""

    max_skew: Annotated[
        int, Field(ge=1, le=1000, description="By how many pods the fullest place may exceed the emptiest.")
    ] = 1
    topology_key: Annotated[
        QualifiedName, Field(description="Node label whose values are the places, such as topology.kubernetes.io/zone.")
    ]
    when_unsatisfiable: WhenUnsatisfiable


class Scheduling(ApiModel):
    """Where the pods may run."""

    node_selector: Annotated[
        dict[QualifiedName, LabelValue],
        Field(max_length=32, default_factory=dict, description="Labels that a node must have."),
    ]
    tolerations: Annotated[
        tuple[Toleration, ...],
        Field(
            max_length=32,
            description="Taints of nodes that the pods may run on all the same; those of GPUs are tolerated anyway.",
            json_schema_extra=rules(
                Rule(
                    rule="self.all(t, t.operator == 'Exists' ? !has(t.value) || t.value == ''"
                    " : has(t.key) && t.key != '')",
                    message="a toleration with operator Exists has no value, and one with Equal needs a key",
                ),
                Rule(
                    rule="self.all(t, !has(t.tolerationSeconds) || (has(t.effect) && t.effect == 'NoExecute'))",
                    message="tolerationSeconds needs the effect NoExecute",
                ),
            ),
        ),
    ] = ()
    priority_class_name: Annotated[DnsName | None, Field(description="PriorityClass of the pods.")] = None
    runtime_class_name: Annotated[DnsName | None, Field(description="RuntimeClass of the pods.")] = None
    topology_spread: Annotated[
        tuple[TopologySpread, ...],
        Field(
            max_length=8,
            description="In the place of Conch's own wish, which is to spread over nodes where there is room. Nodes "
            "that nodeSelector and gpu.products leave out do not count; all others do, with a GPU or without.",
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["topologyKey", "whenUnsatisfiable"],
            },
        ),
    ] = ()
    scheduler_name: Annotated[
        DnsName | None, Field(description="Who chooses the pods' nodes; the cluster's default scheduler if not given.")
    ] = None
    queue_name: Annotated[
        QueueName | None,
        Field(description="LocalQueue of Kueue that admits the pods (the label kueue.x-k8s.io/queue-name)."),
    ] = None
