"""Whether the pods that there are can change their model in place, and what people are told where they cannot."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from conch.api.agent_report import AgentReport
from conch.api.model_deployment import ModelDeployment, parse_spec
from conch.api.spec import ModelDeploymentSpec
from conch.core.observed_pod import ObservedPod
from conch.core.rollout.in_place_fit import misfit
from tests.sim.test_in_place import serving, spec
from tests.sim.world import World

GIB = 1024**3


def seen(
    world: World, *, pods: Mapping[str, Any] | None = None, source: Mapping[str, Any] | None = None, **told: Any
) -> str | None:
    """What is said of a new version, where the agents tell this besides what they told."""
    model = {**world.spec["model"], "source": source or {"uri": "https://models/another.onnx"}}
    owner: ModelDeployment = replace(world.owner, spec=parse_spec({**world.spec, "model": model}))
    assert isinstance(owner.spec, ModelDeploymentSpec)
    assert owner.status.stable
    changed = tuple(_told(pod, pods or {}, told) for pod in world.pods.values())
    observed = replace(world.observed, pods=changed)
    return misfit(owner, owner.spec, owner.status.stable, observed, policy=world.policy)


def _told(pod: ObservedPod, fields: Mapping[str, Any], told: Mapping[str, Any]) -> ObservedPod:
    report: AgentReport | None = pod.report
    assert report
    return replace(pod, **{"report": report.model_copy(update=told), **fields})


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({}, "does not tell how much"),
        ({"gpu_memory_used_bytes": 30 * GIB, "gpu_memory_total_bytes": 80 * GIB, "fetched_bytes": 20 * GIB}, ""),
        (
            {"gpu_memory_used_bytes": 60 * GIB, "gpu_memory_total_bytes": 80 * GIB, "fetched_bytes": 20 * GIB},
            "20480 MiB",
        ),
        ({"gpu_memory_used_bytes": 75 * GIB, "gpu_memory_total_bytes": 80 * GIB, "fetched_bytes": 1}, "does not fit"),
    ],
)
def test_the_only_pod_needs_memory_of_its_gpu_for_both(told: dict[str, Any], why: str) -> None:
    said = seen(on_a_gpu(), **told)
    assert said is not None
    assert why in said if why else said == ""


def test_what_the_author_says_of_the_model_counts_and_makes_no_revision() -> None:
    world = on_a_gpu()
    free: dict[str, Any] = {
        "gpu_memory_used_bytes": 30 * GIB,
        "gpu_memory_total_bytes": 80 * GIB,
        "fetched_bytes": 20 * GIB,
    }
    assert seen(world, **free) == ""
    before = world.status.stable
    world.edit(model={**world.spec["model"], "gpuMemory": "60Gi"})
    said = seen(world, **free)
    assert said
    assert "model.gpuMemory 60Gi" in said
    world.settle()
    assert world.status.stable == before
    assert world.status.candidate is None


def on_a_gpu() -> World:
    """One pod with a GPU."""
    world = World(spec={**spec(1, replicas=1), "gpu": {"count": 1}}, changes_in_place=True)
    for _ in range(3):
        world.settle()
        world.serve()
    world.settle()
    return world


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({}, "names no digest"),
        ({"digest": "sha256:" + "cd" * 32}, ""),
        ({"uri": "https://models/2.onnx"}, ""),
    ],
)
def test_files_that_were_written_over_are_fetched_by_new_pods(source: dict[str, Any], said: str) -> None:
    world = serving(2)
    told = seen(world, source={**world.spec["model"]["source"], **source})
    assert told is not None
    assert said in told if said else told == ""


def test_two_pods_need_no_memory_for_both() -> None:
    assert seen(serving(2), fetched_bytes=2**50) == ""


def test_gateways_are_needed() -> None:
    world = serving(2)
    world.edit(gateway={"mode": "Direct"})
    said = seen(world)
    assert said
    assert "Direct" in said


@pytest.mark.parametrize(
    ("pods", "said"),
    [
        ({"report": None}, None),
        ({"report": None, "agent_unreachable": True}, "there is no pod that serves and whose agent answers"),
        ({"ready": False}, "there is no pod that serves and whose agent answers"),
    ],
)
def test_agents_have_to_be_heard(pods: dict[str, Any], said: str | None) -> None:
    assert seen(serving(2), pods=pods) == said


def test_an_operator_that_would_make_other_pods_makes_other_pods() -> None:
    world = serving(2)
    world.policy = replace(world.policy, agent_image="conch:2")
    said = seen(world)
    assert said
    assert "needs other pods" in said
