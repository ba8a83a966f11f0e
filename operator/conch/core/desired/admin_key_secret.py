"""The Secret with the key of Triton's restricted APIs and of the agent's status."""

from conch.api import names
from conch.api.model_deployment import ModelDeployment
from conch.core.desired.object import DesiredObject, child
from conch.core.observed_child import ChildKind


def admin_key_secret(owner: ModelDeployment) -> DesiredObject:
    """The Secret without its value: that is derived at the moment of writing, so that no plan ever holds a key."""
    return child(
        owner,
        ChildKind.SECRET,
        names.admin_key_secret(owner.name, owner.uid),
        labels=names.object_labels(owner.name),
        fields={"type": "Opaque", "immutable": True},
    )
