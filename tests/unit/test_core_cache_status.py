"""What status tells of the model cache: how the wanted revision's pods came by their model, and what is wrong."""

from dataclasses import replace

import pytest

from conch.api.agent_report import CacheOutcome, CacheReport
from conch.api.status import CacheStatus
from conch.core.policy import ModelCache
from tests.sim.world import POLICY, World

MODEL = {"version": 1, "source": {"uri": "https://models.example/a.onnx"}}
HIT, FILLED, BYPASSED = CacheOutcome.HIT, CacheOutcome.FILLED, CacheOutcome.BYPASSED


def cached(*reports: CacheReport | None) -> World:
    """A model whose pods say so."""
    policy = replace(POLICY, model_cache=ModelCache(claim="model-cache", limit="1Ti"))
    world = World(spec={"model": MODEL, "replicas": len(reports)}, policy=policy)
    world.settle()
    world.serve()
    for (name, pod), report in zip(list(world.pods.items()), reports, strict=True):
        assert pod.report
        world.pods[name] = replace(pod, report=pod.report.model_copy(update={"cache": report}))
    return world


def test_pods_are_counted_by_how_they_came_by_the_model() -> None:
    world = cached(CacheReport(outcome=HIT), CacheReport(outcome=HIT), CacheReport(outcome=FILLED), None)
    assert world.plan().status.cache == CacheStatus(hit=2, filled=1)


@pytest.mark.parametrize("turned", [False, True])
def test_of_several_messages_it_is_the_same_one_whoever_speaks_first(turned: bool) -> None:
    reports = [CacheReport(outcome=BYPASSED, message=message) for message in ("It is full.", "It is away.")]
    world = cached(*(reversed(reports) if turned else reports))
    assert world.plan().status.cache == CacheStatus(bypassed=2, message="It is away.")


def test_what_a_pod_says_is_kept_within_what_a_status_holds() -> None:
    world = cached(CacheReport(outcome=BYPASSED, message="x" * 2048))
    cache = world.plan().status.cache
    assert cache is not None
    assert len(cache.message) == 2048


def test_without_a_cache_nothing_is_said() -> None:
    world = World(spec={"model": MODEL})
    world.settle()
    assert world.plan().status.cache is None
    assert "cache" not in world.plan().status.to_wire()
