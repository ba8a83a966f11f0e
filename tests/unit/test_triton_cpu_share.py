"""A model's instances and threads on CPUs: as many as the container may use, unless its author says otherwise."""

from decimal import Decimal
from typing import Any

import pytest

from conch.triton.config_pbtxt import parse_config
from conch.triton.cpu_share import fit_to_cpus


def fitted(text: str, *, cpus: str = "4", instances: int | None = None) -> Any:
    config = parse_config(text)
    fit_to_cpus(config, cpus=Decimal(cpus), instances=instances)
    return config


def parameters(config: Any) -> dict[str, str]:
    return {key: value.string_value for key, value in config.parameters.items()}


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("onnxruntime", {"intra_op_thread_count": "4", "inter_op_thread_count": "1"}),
        ("pytorch", {"INTRA_OP_THREAD_COUNT": "4", "INTER_OP_THREAD_COUNT": "1"}),
        ("openvino", {"INFERENCE_NUM_THREADS": "4", "NUM_STREAMS": "1"}),
    ],
)
def test_one_instance_on_the_cpu_with_all_that_the_container_may_use(backend: str, expected: dict[str, str]) -> None:
    config = fitted(f'backend: "{backend}"')
    assert [(group.count, group.kind) for group in config.instance_group] == [(1, 2)]
    assert parameters(config) == expected


@pytest.mark.parametrize(
    ("cpus", "instances", "threads"),
    [("0.5", None, "1"), ("1", 4, "1"), ("7.9", 2, "3"), ("8", 3, "2"), ("64", None, "64")],
)
def test_instances_share_them_and_none_has_less_than_one(cpus: str, instances: int | None, threads: str) -> None:
    config = fitted('backend: "onnxruntime"', cpus=cpus, instances=instances)
    assert parameters(config)["intra_op_thread_count"] == threads
    assert [group.count for group in config.instance_group] == [1], "how many there are now is no part of the layout"


def test_the_authors_groups_stand_and_share_them() -> None:
    groups = (
        "instance_group { count: 3 kind: KIND_CPU } instance_group { kind: KIND_AUTO }"
        "instance_group { count: 5 passive: true }"
    )
    config = fitted(f'backend: "onnxruntime" {groups}', cpus="12")
    assert [(group.count, group.kind) for group in config.instance_group] == [(3, 2), (1, 0), (5, 0)]
    assert parameters(config)["intra_op_thread_count"] == "3"
    assert parameters(fitted(f'backend: "onnxruntime" {groups}', cpus="12", instances=2)) == parameters(config)


def test_the_authors_parameters_stand() -> None:
    author = 'parameters { key: "intra_op_thread_count" value { string_value: "7" } }'
    assert parameters(fitted(f'backend: "onnxruntime" {author}')) == {
        "intra_op_thread_count": "7",
        "inter_op_thread_count": "1",
    }


def test_openvinos_instances_share_one_pool_and_a_hint_chooses_its_streams() -> None:
    shared = fitted('backend: "openvino"', cpus="8", instances=2)
    assert parameters(shared) == {"INFERENCE_NUM_THREADS": "8", "NUM_STREAMS": "2"}
    hinted = fitted('backend: "openvino" parameters { key: "PERFORMANCE_HINT" value { string_value: "LATENCY" } }')
    assert parameters(hinted) == {"INFERENCE_NUM_THREADS": "4", "PERFORMANCE_HINT": "LATENCY"}


@pytest.mark.parametrize("text", ['backend: "python"', 'backend: "tensorrt"', 'platform: "ensemble"'])
def test_nothing_is_said_of_other_backends(text: str) -> None:
    assert fitted(text) == parse_config(text)
