"""docs/autoscaling.md says of autoscaling only what the code does."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from conch.api.autoscaling import (
    DEFAULT_IDLE_SECONDS,
    DEFAULT_PERCENTILE,
    Autoscaling,
    ScalingReason,
    ScalingRules,
    TargetMetric,
)
from conch.api.reasons import Reason
from conch.cli import app
from conch.simulate.picture import SUFFIXES
from tests.unit.test_why_scaling import OBJECTIVE, lines, scaled

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "autoscaling.md").read_text()
EXAMPLES = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", DOCUMENT, flags=re.DOTALL)]
COMMANDS = [line.strip() for line in DOCUMENT.splitlines() if re.match(r"( {4}|)(conch|python) ", line)]


def _rows(title: str) -> list[list[str]]:
    section = DOCUMENT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows[1:]]


def _fields() -> dict[str, list[str]]:
    """By the name in the table, its default and what it does."""
    return {name: rest for cell, *rest in _rows("What you can say") for name in re.findall(r"`([^`]+)`", cell)}


def test_the_table_has_every_field_and_no_other() -> None:
    named = {name.partition(".")[0] for name in _fields()}
    assert named == {field.alias for field in Autoscaling.model_fields.values()}
    schema = Autoscaling.model_json_schema()
    for name in _fields():
        node: Any = schema
        for part in name.split("."):
            assert part in node["properties"], name
            reference = re.search(r"#/\$defs/(\w+)", str(node["properties"][part]))
            node = schema["$defs"][reference[1]] if reference else {}


def test_the_table_has_the_defaults_and_every_metric() -> None:
    fields = _fields()
    assert fields["objective.percentile"][0] == f"{DEFAULT_PERCENTILE:g}"
    assert fields["scaleToZero.idleSeconds"][0] == str(DEFAULT_IDLE_SECONDS)
    assert fields["minReplicas"][0] == str(Autoscaling(max_replicas=1).effective_min_replicas)
    assert {metric for metric in TargetMetric if f"`{metric}`" in fields["target"][1]} == set(TargetMetric)
    words = fields["behavior.scaleUp"][1]
    assert {field.alias for field in ScalingRules.model_fields.values() if f"`{field.alias}`" in words} == {
        field.alias for field in ScalingRules.model_fields.values()
    }


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_are_taken_as_they_stand(example: dict[str, Any]) -> None:
    asked = Autoscaling.model_validate(example["autoscaling"])
    assert (asked.objective is None) != (asked.target is None)


def test_the_reasons_are_some_that_there_are() -> None:
    reasons = set(re.findall(r"`([A-Z][a-z]+[A-Z]\w+)`", DOCUMENT.partition("## What happens when")[2]))
    assert reasons >= {"NoData", "ScaledToZero"}
    assert reasons <= {*ScalingReason, *Reason}


def test_what_why_prints_is_what_it_prints() -> None:
    shown = DOCUMENT.partition("\nAutoscaling\n")[2].partition("\n```")[0]
    assert shown.splitlines() == lines(scaled(OBJECTIVE | {"maxReplicas": 8}))


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("conch ") and "--help" not in line])
def test_the_commands_are_taken_as_they_stand(line: str) -> None:
    group: Any = typer.main.get_command(app)
    arguments = shlex.split(line)[1:]
    name, command, rest = group.resolve_command(group.make_context("conch", list(arguments)), arguments)
    taken = command.make_context(name, rest).params
    assert taken["output"] is None or taken["output"].suffix in SUFFIXES


def test_the_picture_is_there_and_small_and_the_command_that_makes_it_reads_what_the_one_before_it_wrote() -> None:
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", DOCUMENT)
    assert (ROOT / "docs" / picture).stat().st_size < 100_000
    load, replay = (shlex.split(line) for line in COMMANDS[-2:])
    assert load[-1] in replay
    assert replay[-1] == picture
    compile(load[2], "the load", "exec")


def test_every_linked_file_exists() -> None:
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", DOCUMENT)]
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
