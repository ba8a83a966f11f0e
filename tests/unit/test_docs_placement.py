"""docs/placement.md says of placement only what the code does, and all of it."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from conch.api.gpu import Gpu
from conch.api.model_deployment import InvalidSpec, parse_spec
from conch.api.reasons import Reason
from conch.api.scheduling import Scheduling
from conch.triton.config_pbtxt import parse_config
from conch.triton.cpu_share import fit_to_cpus
from tests import generate

DOCUMENT = (Path(__file__).parents[2] / "docs" / "placement.md").read_text()
MODEL = {"version": 1, "source": {"uri": "https://models.example.com/m.onnx"}}
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", DOCUMENT, flags=re.DOTALL)]


@pytest.mark.parametrize("block", [block for block in BLOCKS if "gpu" in block])
def test_its_examples_are_valid(block: dict[str, Any]) -> None:
    spec = parse_spec({**block, "model": {**MODEL, **block.get("model", {})}})
    assert not isinstance(spec, InvalidSpec), spec


def test_its_values_are_the_charts() -> None:
    values = yaml.safe_load((generate.CHART / "values.yaml").read_text())
    (block,) = [block for block in BLOCKS if "prePull" in block]
    assert block["prePull"].keys() <= values["prePull"].keys()
    for name in re.findall(r"`(policy|prePull)\.(\w+)`", DOCUMENT):
        assert name[1] in values[name[0]]


@pytest.mark.parametrize("model", [Gpu, Scheduling])
def test_every_field_is_described(model: type[Gpu | Scheduling]) -> None:
    fields = {field.alias or name for name, field in model.model_fields.items()}
    assert {field for field in fields if not re.search(rf"`(gpu\.)?{field}\b", DOCUMENT)} == set()


def test_the_reasons_that_it_explains_are_reasons() -> None:
    table = DOCUMENT.partition("| reason |")[2].partition("\n\n")[0]
    named = re.findall(r"^\| (\w+) \|", table, flags=re.MULTILINE)
    assert len(named) == 4
    assert set(named) <= {reason.value for reason in Reason}


@pytest.mark.parametrize("backend", ["onnxruntime", "pytorch", "openvino"])
def test_the_parameters_of_each_backend_are_those_that_are_set(backend: str) -> None:
    config = parse_config(f'backend: "{backend}"')
    fit_to_cpus(config, cpus=Decimal(2), instances=None)
    (row,) = [line for line in DOCUMENT.splitlines() if line.startswith(f"| {backend} |")]
    assert set(re.findall(r"`(\w+)`", row)) == set(config.parameters)
