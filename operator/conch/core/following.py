"""Whether what carries requests does what `status` asks for: Conch's gateways, and the Gateways that routes name."""

from conch.api.model_deployment import ModelDeployment
from conch.core.acknowledgement import acknowledged, acknowledged_by_heard
from conch.core.gateway_api import behind, has_routes
from conch.core.observed import Observed


def followed(owner: ModelDeployment, observed: Observed) -> bool:
    """Whether everybody does what the object's status asks for."""
    return acknowledged(owner.status, observed) and _by_routes(owner, observed)


def followed_by_heard(owner: ModelDeployment, observed: Observed) -> bool:
    """The same by those of Conch's gateways that answer: where nothing ends for the word of a silent one."""
    return acknowledged_by_heard(owner.status, observed) and _by_routes(owner, observed)


def _by_routes(owner: ModelDeployment, observed: Observed) -> bool:
    return not has_routes(owner, observed) or not behind(owner, owner.status, observed)
