"""The children that Conch would write, for whoever wants to know what they cost without an operator."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from conch.api.model_deployment import parse
from conch.app.policy import installation_policy
from conch.app.projections import CHILD_RESOURCES
from conch.core.actions import Apply, EnsureAdminKey
from conch.core.observed import ChildKind, Observed
from conch.core.plan import plan
from conch.kube.resources import Resource
from conch.settings import ImageSettings, OperatorSettings


def bare_children(
    model: Mapping[str, Any], *, namespace: str, labels: Mapping[str, str]
) -> Iterator[tuple[Resource, dict[str, Any]]]:
    """What the planner wants for a new object, in its order, without the owner that garbage collection would miss.

    The Deployment also gets `labels`.
    """
    metadata = {**model["metadata"], "namespace": namespace, "uid": "none", "resourceVersion": "1"}
    images = ImageSettings(triton="localhost/triton:dev", agent="localhost/conch:dev")
    policy = installation_policy(OperatorSettings(images=images))
    planned = plan(
        owner=parse({**model, "metadata": metadata}), observed=Observed(), policy=policy, now=datetime.now(UTC)
    )
    for action in planned.actions:
        assert isinstance(action, Apply | EnsureAdminKey)
        body = copy.deepcopy(dict(action.desired.body))
        del body["metadata"]["ownerReferences"]
        if action.desired.id.kind is ChildKind.DEPLOYMENT:
            body["metadata"]["labels"] |= labels
        yield CHILD_RESOURCES[action.desired.id.kind], body
