"""The children that Conch would write, for whoever wants to know what they cost without an operator."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from conch.api import gateway_pod
from conch.api.gateway_report import ObjectTraffic
from conch.api.model_deployment import parse
from conch.app.policy import installation_policy
from conch.app.projections import CHILD_RESOURCES
from conch.core.actions import Apply, EnsureAdminKey
from conch.core.observed import Observed, ObservedGateway
from conch.core.observed_child import ChildKind
from conch.core.plan import plan
from conch.kube.resources import Resource
from conch.settings import ImageSettings, OperatorSettings

_OBSERVED = Observed(
    port=gateway_pod.PORTS_FIRST,
    gateways=tuple(
        ObservedGateway(name=address, address=address, ready=True, heard=True, traffic=ObjectTraffic(generation="any"))
        for address in ("10.64.0.2", "10.64.0.3")
    ),
)
"""Gateways that listen already: the EndpointSlice is written once, as it stays."""


def bare_children(
    model: Mapping[str, Any], *, namespace: str, labels: Mapping[str, str]
) -> Iterator[tuple[Resource, dict[str, Any]]]:
    """What the planner wants for a new object, in its order, without the owner that garbage collection would miss.

    The Deployment also gets `labels`.
    """
    metadata = {**model["metadata"], "namespace": namespace, "uid": "none", "resourceVersion": "1"}
    images = ImageSettings(triton="localhost/triton:dev", agent="localhost/conch:dev")
    policy = installation_policy(OperatorSettings(images=images), namespace="conch-system")
    planned = plan(
        owner=parse({**model, "metadata": metadata}), observed=_OBSERVED, policy=policy, now=datetime.now(UTC)
    )
    for action in planned.actions:
        assert isinstance(action, Apply | EnsureAdminKey)
        body = copy.deepcopy(dict(action.desired.body))
        del body["metadata"]["ownerReferences"]
        if action.desired.id.kind is ChildKind.DEPLOYMENT:
            body["metadata"]["labels"] |= labels
        yield CHILD_RESOURCES[action.desired.id.kind], body
