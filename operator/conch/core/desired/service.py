"""The Service that clients call."""

from conch.api import names, pod
from conch.api.model_deployment import ModelDeployment
from conch.core.desired.object import DesiredObject, child
from conch.core.observed import ChildKind


def service(owner: ModelDeployment, workload: str) -> DesiredObject:
    """The Service, sending to the pods of this workload."""
    return child(
        owner,
        ChildKind.SERVICE,
        names.service(owner.name),
        labels=names.object_labels(owner.name),
        fields={
            "spec": {
                "type": "ClusterIP",
                "selector": names.workload_selector(owner.name, workload),
                "ports": [
                    {"name": "http", "port": pod.HTTP_PORT, "protocol": "TCP", "targetPort": pod.HTTP_PORT},
                    {"name": "grpc", "port": pod.GRPC_PORT, "protocol": "TCP", "targetPort": pod.GRPC_PORT},
                ],
            }
        },
    )
