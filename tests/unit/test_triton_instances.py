"""Numbers of instances in a model's configuration: read, and written into the one that is loaded."""

import json
from typing import Any

import pytest

from conch.triton.config_pbtxt import parse_config
from conch.triton.instances import InstanceGroups, config_json, instance_groups, instances_at_once

TWO_GROUPS = """
name: "mlp" max_batch_size: 8 version_policy { specific { versions: [3] } }
instance_group { name: "fast" count: 1 kind: KIND_GPU gpus: [0, 1] }
instance_group { count: 4 kind: KIND_CPU }
"""


def groups_of(config: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(config)["instance_group"]
    return found


def test_every_group_gets_the_number_and_says_whose_it_is() -> None:
    config = parse_config(TWO_GROUPS)
    told = config_json(config, instances=3)
    assert json.loads(told)["version_policy"] == {"specific": {"versions": ["3"]}}
    assert groups_of(told) == [
        {"name": "conch_instances_0", "count": 3, "kind": "KIND_GPU", "gpus": [0, 1]},
        {"name": "conch_instances_1", "count": 3, "kind": "KIND_CPU"},
    ]
    assert config == parse_config(TWO_GROUPS), "the one that was given is as it was"
    assert [group.get("count") for group in groups_of(config_json(config, instances=None))] == [1, 4]


def test_a_model_without_groups_gets_one_of_the_kind_that_triton_chooses() -> None:
    assert groups_of(config_json(parse_config('name: "mlp"'), instances=2)) == [
        {"name": "conch_instances_0", "count": 2}
    ]
    assert "instance_group" not in json.loads(config_json(parse_config('name: "mlp"'), instances=None))


def test_a_group_keeps_its_gpus_when_its_number_changes() -> None:
    """Triton completes a group without GPUs by all that it sees, so what runs always names them."""
    config = parse_config("instance_group { count: 1 kind: KIND_GPU gpus: [1] }")
    assert groups_of(config_json(config, instances=3)) == [
        {"name": "conch_instances_0", "count": 3, "kind": "KIND_GPU", "gpus": [1]}
    ]


@pytest.mark.parametrize(
    ("config", "groups"),
    [
        (TWO_GROUPS, InstanceGroups(counts=(1, 4), overridden=False)),
        (
            'instance_group { name: "conch_instances_0" count: 2 kind: KIND_CPU }',
            InstanceGroups(counts=(2,), overridden=True),
        ),
        ('platform: "ensemble"', None),
    ],
)
def test_what_runs_tells_whose_number_it_is(config: str, groups: InstanceGroups | None) -> None:
    assert instance_groups(parse_config(config)) == groups


def test_the_assigned_number_is_that_of_every_group() -> None:
    assert InstanceGroups(counts=(2, 2), overridden=False).are(2)
    assert not InstanceGroups(counts=(2, 1), overridden=False).are(2)
    assert InstanceGroups(counts=(2, 1), overridden=False).are(None)
    assert not InstanceGroups(counts=(2, 2), overridden=True).are(None)


@pytest.mark.parametrize(
    ("config", "at_once"),
    [
        (TWO_GROUPS, 6),
        ("instance_group { count: 2 kind: KIND_CPU } instance_group { count: 5 kind: KIND_CPU passive: true }", 2),
        ("instance_group { count: 3 kind: KIND_MODEL gpus: [0, 1] }", 3),
        (
            "instance_group { count: 2 kind: KIND_GPU gpus: [0] } instance_group { count: 1 kind: KIND_GPU gpus: [1] }",
            3,
        ),
        ("", 1),
    ],
)
def test_batches_at_the_same_time(config: str, at_once: int) -> None:
    assert instances_at_once(parse_config(config)) == at_once
