"""The EndpointSlice with which an object's Service sends to the gateways."""

from collections.abc import Iterable

from conch.api import names
from conch.api.model_deployment import ModelDeployment
from conch.core.desired.object import DesiredObject, child
from conch.core.observed_child import ChildKind


def gateway_slice(owner: ModelDeployment, port: int, addresses: Iterable[str]) -> DesiredObject:
    """The slice with these gateways; both of the Service's ports lead to the object's port, where either is spoken."""
    ordered = sorted(addresses)
    labels = {names.LABEL_SERVICE: names.service(owner.name), names.LABEL_SLICE_MANAGED_BY: names.SLICE_MANAGED_BY}
    return child(
        owner,
        ChildKind.ENDPOINT_SLICE,
        names.gateway_slice(owner.name),
        labels=names.object_labels(owner.name) | labels,
        fields={
            "addressType": "IPv6" if ordered and ":" in ordered[0] else "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in ordered],
            "ports": [
                {"name": "http", "port": port, "protocol": "TCP"},
                {"name": "grpc", "port": port, "protocol": "TCP"},
            ],
        },
    )
