"""Two revisions in the same pods, where the planner looks at something else than the rollout."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

import pytest

from conch.api.status import ServedRevision
from conch.core.cache_fallback import MISSING_PATIENCE, mounts_cache
from conch.core.desired.model_cache import CACHE_VOLUME
from conch.core.gateway_api import wanted_kinds
from conch.core.observed import Observed
from conch.core.observed_child import ROUTE_KINDS, WorkloadRecord
from conch.core.observed_pod import ObservedPod
from tests.sim.world import World

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
MODEL: Final = {"version": 1, "source": {"uri": "https://models.example/a.onnx"}}
STABLE: Final = ServedRevision(revision="r1", version=1, workload="w1")
BY_ROUTES: Final = {"mode": "GatewayAPI", "parentRefs": [{"name": "public"}], "hostnames": ["a.example.com"]}


@pytest.mark.parametrize(
    ("candidate", "kinds"),
    [
        (None, ROUTE_KINDS),
        ({"workload": "w2"}, ROUTE_KINDS),
        ({"workload": "w2", "host": "w1"}, ()),
    ],
    ids=["nothing changes", "in pods of its own", "in the same pods"],
)
def test_routes_are_not_written_while_pods_change_in_place(candidate: dict[str, Any] | None, kinds: Any) -> None:
    """No route can leave out the pod that changes: an edit to GatewayAPI waits for the end of it."""
    owner = World(spec={"model": MODEL, "gateway": BY_ROUTES}).owner
    other = ServedRevision(revision="r2", version=2, **candidate) if candidate else None
    status = owner.status.model_copy(update={"stable": STABLE, "candidate": other})
    assert wanted_kinds(replace(owner, status=status)) == kinds


@pytest.mark.parametrize(
    ("homes", "goes_on"), [({}, True), ({"w2": "w1"}, False)], ids=["another's pod", "its own pod"]
)
def test_the_cache_is_given_up_for_a_pod_that_serves_another_revision_by_then(
    homes: dict[str, str], goes_on: bool
) -> None:
    """A pod that is to serve the change's revision when it finds no node is still of the workload that made it."""
    owner = World(spec={"model": MODEL}).owner
    claim = {"name": CACHE_VOLUME, "persistentVolumeClaim": {"claimName": "model-cache"}}
    record = WorkloadRecord(
        workload="w1",
        number=1,
        revision="r1",
        version=1,
        spec_json="{}",
        pod_template_json=json.dumps({"spec": {"volumes": [claim]}}),
        assignment_json="{}",
    )
    waiting = ObservedPod(
        name="a",
        uid="a",
        workload="w2",
        unschedulable_message='persistentvolumeclaim "model-cache" not found',
        created=(NOW - MISSING_PATIENCE - timedelta(seconds=1)).isoformat(),
    )
    observed = Observed(pods=(waiting,), homes=MappingProxyType(homes))
    assert mounts_cache(owner, record, "model-cache", observed, NOW) is goes_on
