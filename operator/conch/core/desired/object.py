"""What a builder returns: the fields of one child that Conch owns, and their hash."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from conch.api import names
from conch.api.canonical import canonical_hash
from conch.api.gateway_api import GATEWAY_API_VERSION
from conch.api.model_deployment import ModelDeployment
from conch.core.observed_child import ChildId, ChildKind

_API_VERSIONS: Final[Mapping[ChildKind, str]] = {
    ChildKind.CONFIG_MAP: "v1",
    ChildKind.CONTROLLER_REVISION: "apps/v1",
    ChildKind.DEPLOYMENT: "apps/v1",
    ChildKind.ENDPOINT_SLICE: "discovery.k8s.io/v1",
    ChildKind.GRPC_ROUTE: GATEWAY_API_VERSION,
    ChildKind.HTTP_ROUTE: GATEWAY_API_VERSION,
    ChildKind.NETWORK_POLICY: "networking.k8s.io/v1",
    ChildKind.POD_DISRUPTION_BUDGET: "policy/v1",
    ChildKind.SECRET: "v1",
    ChildKind.SERVICE: "v1",
}


@dataclass(frozen=True, kw_only=True)
class DesiredObject:
    """A child as it should be: an apply configuration, which names every field that Conch owns and no other."""

    id: ChildId
    body: Mapping[str, Any]

    @cached_property
    def hash(self) -> str:
        """Hash of the owned fields; equals ObservedChild.owned_hash when nothing has to be written."""
        return owned_fields_hash(self.body)


def owned_fields_hash(body: Mapping[str, Any]) -> str:
    """Hash of an apply configuration without the parts that name the object instead of describing it."""
    metadata = {key: value for key, value in body["metadata"].items() if key not in ("name", "namespace")}
    rest = {key: value for key, value in body.items() if key not in ("apiVersion", "kind", "metadata")}
    return canonical_hash({"metadata": metadata, **rest})


def child(
    owner: ModelDeployment,
    kind: ChildKind,
    name: str,
    *,
    labels: Mapping[str, str],
    fields: Mapping[str, Any],
) -> DesiredObject:
    """An object of this kind, in the owner's namespace, controlled by the owner."""
    return DesiredObject(
        id=ChildId(kind=kind, name=name),
        body={
            "apiVersion": _API_VERSIONS[kind],
            "kind": str(kind),
            "metadata": {
                "name": name,
                "namespace": owner.namespace,
                "labels": dict(labels),
                "ownerReferences": [owner_reference(owner)],
            },
            **fields,
        },
    )


def owner_reference(owner: ModelDeployment) -> dict[str, Any]:
    """The reference that makes garbage collection remove the child with its owner."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
