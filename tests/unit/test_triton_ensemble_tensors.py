"""How an ensemble's steps hand tensors on: what Triton would refuse is refused before, with what to do."""

from collections.abc import Mapping

import pytest

from conch.packaging.pipeline.ensemble import ensemble_config
from conch.packaging.pipeline.wiring import check_wiring
from conch.packaging.text.ensemble import text_models
from conch.triton.config_pbtxt import parse_config
from conch.triton.ensemble_tensors import check_steps
from conch.triton.errors import InvalidModelError
from tests.unit.test_packaging_pipeline_ensemble import configs, pipeline
from tests.unit.test_packaging_text_ensemble import graph_config

FIRST = """
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 4 }
input { name: "hint" data_type: TYPE_INT32 dims: 1 optional: true }
output { name: "y" data_type: TYPE_FP32 dims: [ -1, 3 ] }
"""
SECOND = """
max_batch_size: 8
input { name: "z" data_type: TYPE_FP32 dims: [ 2, 3 ] }
output { name: "label" data_type: TYPE_STRING dims: 1 }
"""
ENDS = """
input { name: "in" data_type: TYPE_FP32 dims: 4 }
output { name: "out" data_type: TYPE_STRING dims: 1 }
"""
STEPS = (
    'step { model_name: "first" input_map { key: "x" value: "in" } output_map { key: "y" value: "between" } }',
    'step { model_name: "second" input_map { key: "z" value: "between" } output_map { key: "label" value: "out" } }',
)


def check(*steps: str, ends: str = ENDS, **models: str) -> None:
    texts: Mapping[str, str] = {"first": FIRST, "second": SECOND, **models}
    check_steps(
        parse_config(f"max_batch_size: 8 {ends} ensemble_scheduling {{ {' '.join(steps or STEPS)} }}"),
        {name: parse_config(text) for name, text in texts.items()},
    )


@pytest.mark.parametrize(
    "first",
    [
        FIRST,
        "",  # which Triton completes from its file
        'input { name: "x" } output { name: "y" }',  # of which it completes types and axes
        # Takes no batches: the axis of batches is one of its own.
        'input { name: "x" data_type: TYPE_FP32 dims: [ -1, 4 ] } '
        'output { name: "y" data_type: TYPE_FP32 dims: [ -1, 2, 3 ] }',
    ],
)
def test_what_fits_or_cannot_be_told_passes(first: str) -> None:
    check(first=first)


def test_the_order_of_steps_does_not_matter() -> None:
    check(*reversed(STEPS))


def test_a_model_that_is_no_ensemble_passes() -> None:
    check_steps(parse_config(FIRST), {})


def test_what_conch_packages_fits() -> None:
    scalar = graph_config()
    scalar.output[0].dims[:] = [1]
    scalar.output[0].reshape.SetInParent()
    for graph in (graph_config(), graph_config(length=24), graph_config(max_batch_size=1), scalar):
        models = text_models("mood", graph)
        check_steps(models["mood"], models)
    models = {f"inspection_{name}": config for name, config in configs().items()}
    check_steps(ensemble_config(pipeline(), check_wiring(pipeline(), configs())), models)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('key: "z"', 'key: "zz"', r"step 2 \(second\) gets nothing for its input 'z'; add it to the step's input_map"),
        (
            'key: "z" value',
            'key: "z" value: "between" } input_map { key: "q" value',
            r"step 2 \(second\) has no input 'q'",
        ),
        ('key: "y"', 'key: "q"', r"step 1 \(first\) has no output 'q', to which output_map gives 'between'; it has y"),
        (
            'key: "z" value: "between"',
            'key: "z" value: "gone"',
            r"takes the tensor 'gone', which is neither an input of",
        ),
        ('value: "out"', 'value: "elsewhere"', "no step gives the ensemble's output 'out'"),
        (
            'value: "out"',
            'value: "between"',
            r"gives the tensor 'between', which is there already as output 'y' of step 1",
        ),
        ('value: "out"', 'value: "in"', "'in', which is there already as input of the ensemble; rename one of them"),
    ],
)
def test_wrong_maps_are_told(old: str, new: str, message: str) -> None:
    steps = " ".join(STEPS)
    assert old in steps
    with pytest.raises(InvalidModelError, match=message):
        check(steps.replace(old, new))


@pytest.mark.parametrize(
    ("model", "old", "new", "message"),
    [
        (
            "second",
            'name: "z" data_type: TYPE_FP32',
            'name: "z" data_type: TYPE_INT64',
            r"'between' is FP32 as output 'y' of step 1 \(first\), and INT64 as input 'z' of step 2 \(second\); make",
        ),
        (
            "second",
            "dims: [ 2, 3 ]",
            "dims: [ 2, 4 ]",
            r"the dims \[-1, 3\] as output 'y' of step 1 .* and \[2, 4\] as",
        ),
        ("second", "dims: [ 2, 3 ]", "dims: [ 3 ] dims: [ 3, 3, 3 ]", r"has the dims \[-1, 3\]"),
        (
            "first",
            "dims: 4",
            "dims: 5",
            r"the tensor 'in' has the dims \[4\] as input of the ensemble, and \[5\] as inp",
        ),
        (
            "second",
            "TYPE_STRING",
            "TYPE_INT32",
            r"the tensor 'out' is INT32 as output 'label' of .* and BYTES as output",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_told(model: str, old: str, new: str, message: str) -> None:
    text = {"first": FIRST, "second": SECOND}[model]
    assert old in text
    with pytest.raises(InvalidModelError, match=message):
        check(**{model: text.replace(old, new)})
