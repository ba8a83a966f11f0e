"""An answer as text and as JSON."""

import json
from typing import Any

import numpy as np
import pytest

from conch.client.golden import Verdict
from conch.client.render import Told, as_json, as_text, printable
from conch.client.server import Answer
from conch.client.tensors import from_array, from_values
from conch.triton.tensors import DATATYPES


def told(*outputs: Any, **changes: Any) -> Told:
    fields: dict[str, Any] = {
        "model": "sentiment",
        "protocol": "grpc",
        "answered_by": "pod a, version 3",
        "milliseconds": 12.3456,
        "answer": Answer(version="3", outputs=outputs),
    }
    return Told(**(fields | changes))


def test_text_has_a_headline_and_each_output_with_its_type_and_shape() -> None:
    assert as_text(told(from_array("y", np.array([[0.5, 1]], np.float32)))).splitlines() == [
        "sentiment version 3 answered in 12.3 ms (grpc, pod a, version 3)",
        "y FP32 [1, 2]",
        "  [[0.5, 1. ]]",
    ]


def test_long_outputs_are_shortened_in_text_and_whole_in_json() -> None:
    long = told(from_array("y", np.zeros((100, 100), np.int8)))
    assert len(as_text(long).splitlines()) < 12
    assert len(json.loads(as_json(long))["outputs"][0]["data"]) == 10_000


@pytest.mark.parametrize("datatype", DATATYPES)
def test_json_has_every_datatype(datatype: str) -> None:
    values: list[Any] = ["ü", ""] if datatype == "BYTES" else [True, False] if datatype == "BOOL" else [1, 0]
    (output,) = json.loads(as_json(told(from_values("y", datatype, values))))["outputs"]
    assert output == {"name": "y", "datatype": datatype, "shape": [2], "data": values}


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
def test_what_json_has_no_numbers_for_is_text(datatype: str) -> None:
    (output,) = json.loads(as_json(told(from_values("y", datatype, [float("nan"), float("-inf"), 1]))))["outputs"]
    assert output["data"] == ["nan", "-inf", 1]


def test_bytes_that_are_no_text_are_escaped() -> None:
    (output,) = json.loads(as_json(told(from_array("y", np.array([b"a\xff"], dtype=object)))))["outputs"]
    assert output["data"] == ["a\\xff"]


def test_what_a_model_says_cannot_steer_the_terminal() -> None:
    shown = as_text(told(from_array("y\x1b[2J", np.array(["\x1b[2J"]))))
    assert "\x1b" not in shown
    assert printable("a\x07\nb\tc\x9b") == "a\nb\tc"


def test_the_golden_sets_verdict_is_told() -> None:
    verdicts = (Verdict(output="y", passed=False, words="1 of 1 values differ"),)
    differs = told(sample=4, verdicts=verdicts)
    assert as_text(differs).splitlines()[-2:] == ["golden sample 4: DIFFERS", "  y: DIFFERS, 1 of 1 values differ"]
    assert json.loads(as_json(differs))["golden"] == {
        "sample": 4,
        "asExpected": False,
        "outputs": [{"output": "y", "passed": False, "words": "1 of 1 values differ"}],
    }
    assert json.loads(as_json(told(sample=4)))["golden"] == {"sample": 4, "asExpected": None, "outputs": []}
    assert json.loads(as_json(told()))["golden"] is None
