"""A sample of a golden set: what of it is sent, how the answer compares, and what is refused with which words."""

import base64
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from conch.client.errors import ClientError
from conch.client.golden import Verdict, compare, read_sample
from conch.client.metadata import ModelMetadata, Signature, check_inputs, signatures
from conch.client.tensors import from_array
from conch.triton.golden_set import ENTRIES_MOST, EXACT, FILE_BYTES_MOST, SameLabel, Sample, Within
from conch.triton.tensors import Tensor

MODEL = ModelMetadata(
    name="sentiment",
    inputs=signatures(
        [
            Signature(name="x", datatype="FP32", shape=(-1, 4)),
            Signature(name="texts", datatype="BYTES", shape=(-1, -1)),
        ]
    ),
    outputs=signatures(
        [
            Signature(name="scores", datatype="FP32", shape=(-1, 2)),
            Signature(name="label", datatype="INT64", shape=(-1, 1)),
            Signature(name="words", datatype="BYTES", shape=(-1, 1)),
        ]
    ),
)


def golden(**changes: Any) -> dict[str, Any]:
    body = {
        "data": [
            {"x": {"content": [1, 2, 3, 4], "shape": [4]}, "texts": {"content": ["a", "b"], "shape": [2]}},
            {"x": [5, 6, 7, 8]},
        ],
        "validation_data": [
            {
                "scores": {"content": [0.25, 0.75], "shape": [2]},
                "label": {"content": [2**53 + 1], "shape": [1]},
                "words": {"b64": base64.b64encode(b"\x01\0\0\0w").decode(), "shape": [1]},
            },
            {},
        ],
    }
    return body | changes


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "golden.json"


def read(file: Path, number: int = 0, model: ModelMetadata = MODEL, **changes: Any) -> Sample:
    file.write_text(json.dumps(golden(**changes)))
    return read_sample(file, number, model)


def test_a_sample_becomes_a_batch_of_one(file: Path) -> None:
    sample = read(file)
    assert [(each.name, each.datatype, each.shape) for each in sample.inputs] == [
        ("x", "FP32", (1, 4)),
        ("texts", "BYTES", (1, 2)),
    ]
    check_inputs(sample.inputs, MODEL)
    assert [(each.tensor.shape, each.tolerance) for each in sample.expected] == [
        ((2,), Within(atol=1e-4, rtol=1e-3)),
        ((1,), EXACT),
        ((1,), EXACT),
    ]


def test_a_sample_without_an_answer_and_a_set_without_any_are_sent_all_the_same(file: Path) -> None:
    for body in (golden(), {"data": golden()["data"]}, golden() | {"conch": None}):
        file.write_text(json.dumps(body))
        bare = read_sample(file, 1, MODEL)
        assert (bare.number, bare.inputs[0].array.tolist(), bare.expected) == (1, [[5, 6, 7, 8]], ())


def one_input(shape: tuple[int, ...], datatype: str = "FP32") -> ModelMetadata:
    return ModelMetadata(name="m", inputs=signatures([Signature(name="x", datatype=datatype, shape=shape)]), outputs={})


def test_a_model_without_a_batch_axis_gets_the_sample_as_it_is(file: Path) -> None:
    raw = base64.b64encode(np.array([1, 2, 3, 4], ml_dtypes.bfloat16).tobytes()).decode()
    for value in ([1, 2, 3, 4], [[1, 2], [3, 4]], {"b64": raw}, {"content": {"b64": raw}}):
        sample = read(file, model=one_input((2, 2), "BF16"), data=[{"x": value}], validation_data=[{}])
        assert sample.inputs[0].array.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("model", "value", "shape"),
    [
        ((-1, 4), [1, 2, 3, 4], (1, 4)),
        ((-1, 4), [[1, 2], [3, 4]], (1, 4)),
        ((-1, 4), [[1, 2, 3, 4]], (1, 4)),
        ((-1, 4), [[1, 2, 3, 4], [5, 6, 7, 8]], (2, 4)),
        ((-1, 4), {"content": [1, 2, 3, 4, 5, 6, 7, 8], "shape": [2, 4]}, (2, 4)),
        ((-1, -1), [1, 2], (1, 2)),
        ((-1, -1), [[1, 2], [3, 4]], (2, 2)),
        ((-1, -1, 2), [[1, 2], [3, 4]], (1, 2, 2)),
        ((-1, -1, 2), [1, 2, 3, 4], (1, 2, 2)),
        ((-1, -1, -1), [[1, 2], [3, 4]], (1, 2, 2)),
        ((-1,), [1, 2], (2,)),
        ((1, 4), [1, 2, 3, 4], (1, 4)),
        ((1, -1, -1), [[1, 2]], (1, 1, 2)),
        ((1, -1, -1), [[[1, 2]]], (1, 1, 2)),
        ((2, -1), [1, 2, 3, 4], (2, 2)),
    ],
)
def test_an_axis_in_front_may_be_the_batch_or_the_models_own(
    file: Path, model: tuple[int, ...], value: Any, shape: tuple[int, ...]
) -> None:
    sample = read(file, model=one_input(model), data=[{"x": value}], validation_data=[{}])
    assert sample.inputs[0].shape == shape
    check_inputs(sample.inputs, one_input(model))


def test_what_is_too_large_for_a_rollout_or_wrong_elsewhere_can_still_be_sent(file: Path) -> None:
    others: list[Any] = [{"y": 1}] * (ENTRIES_MOST + 1)
    sample = read(file, data=[{"x": [1, 2, 3, 4]}, *others], validation_data=[{}], more="y" * FILE_BYTES_MOST)
    assert sample.inputs[0].array.tolist() == [[1, 2, 3, 4]]
    values = (1 << 21) + 1
    (x,) = read(file, model=one_input((-1, values), "INT8"), data=[{"x": [0] * values}], validation_data=[{}]).inputs
    assert x.shape == (1, values)


def answer(**changes: Any) -> tuple[Tensor, ...]:
    arrays: dict[str, Any] = {
        "scores": np.array([[0.25, 0.75]], np.float32),
        "label": np.array([[2**53 + 1]]),
        "words": np.array([[b"w"]], dtype=object),
    }
    return tuple(from_array(name, array) for name, array in (arrays | changes).items() if array is not None)


def verdicts(file: Path, answers: tuple[Tensor, ...], **changes: Any) -> dict[str, Verdict]:
    return {each.output: each for each in compare(read(file, **changes).expected, answers)}


def test_answers_within_the_tolerance_pass(file: Path) -> None:
    told = verdicts(file, answer(scores=np.array([[0.25 + 3e-4, 0.75]], np.float32)))
    assert all(each.passed for each in told.values())
    assert told["scores"].words == "largest deviation 0.0003, allowed 0.0001 + 0.001 of the expected value"
    assert (told["label"].words, told["words"].words) == ("equal", "equal")


@pytest.mark.parametrize(
    ("changes", "output", "words"),
    [
        (
            {"scores": np.array([[0.25 + 5e-4, 0.75]], np.float32)},
            "scores",
            "1 of 2 values differ, largest deviation 0.0005, allowed 0.0001 + 0.001 of the expected value; scores[0] "
            "is 0.250499994, expected 0.25: off by 0.0005, allowed 0.00035",
        ),
        (
            {"scores": np.array([[np.nan, 0.75]], np.float32)},
            "scores",
            "1 of 2 values differ, largest deviation 0, allowed 0.0001 + 0.001 of the expected value; scores[0] "
            "is nan, expected 0.25: off by nan, allowed 0.00035",
        ),
        ({"scores": np.array([[0.25, 0.75]])}, "scores", "it is FP64 [2], expected FP32 [2]"),
        ({"scores": np.array([[0.25]], np.float32)}, "scores", "it is FP32 [1], expected FP32 [2]"),
        ({"scores": np.array([[0.25, 0.75]] * 2, np.float32)}, "scores", "it is FP32 [2, 2], expected FP32 [2]"),
        ({"scores": None}, "scores", "it is not in the answer"),
        (
            {"label": np.array([[2**53]])},
            "label",
            f"1 of 1 values differ; label[0] is {2**53}, expected {2**53 + 1}: must be equal",
        ),
        (
            {"words": np.array([[b"v"]], dtype=object)},
            "words",
            "1 of 1 values differ; words[0] is 'v', expected 'w': must be equal",
        ),
    ],
)
def test_answers_that_differ_say_how(file: Path, changes: Any, output: str, words: str) -> None:
    told = verdicts(file, answer(**changes))
    assert told[output] == Verdict(output=output, passed=False, words=words)
    assert sum(each.passed for each in told.values()) == 2


def test_texts_in_the_batch_axis_alone_are_compared(file: Path) -> None:
    outputs = signatures([Signature(name="words", datatype="BYTES", shape=(-1,))])
    model = ModelMetadata(name="m", inputs={}, outputs=outputs)
    for recorded in (["w"], {"content": ["w"], "shape": []}):
        (expected,) = read(file, model=model, data=[{}], validation_data=[{"words": recorded}]).expected
        (told,) = compare([expected], [from_array("words", np.array([b"w"], dtype=object))])
        assert told == Verdict(output="words", passed=True, words="equal")


def test_the_sets_own_tolerances_count(file: Path) -> None:
    near = answer(scores=np.array([[0.3, 0.75]], np.float32), label=np.array([[2**53 + 3]]))
    wide = {"tolerances": {"scores": {"atol": 0.1, "rtol": 0}, "label": {"atol": 4, "rtol": 0}}}
    assert [each.words for each in verdicts(file, near, conch=wide).values()] == [
        "largest deviation 0.05, allowed 0.1 + 0 of the expected value",
        "largest deviation 2, allowed 4 + 0 of the expected value",
        "equal",
    ]
    exact = {"tolerances": {"scores": "exact"}}
    assert verdicts(file, answer(), conch=exact)["scores"].words == "largest deviation 0, exact"
    assert verdicts(file, near, conch=exact)["scores"] == Verdict(
        output="scores",
        passed=False,
        words="1 of 2 values differ, largest deviation 0.05, exact; scores[0] is 0.300000012, expected 0.25: must be "
        "equal",
    )


def test_a_label_may_be_all_that_counts(file: Path) -> None:
    label = {"tolerances": {"scores": "label"}}
    assert read(file, conch=label).expected[0].tolerance == SameLabel()
    same = answer(scores=np.array([[0.49, 0.51]], np.float32))
    assert verdicts(file, same, conch=label)["scores"].words == "the same label"
    other = answer(scores=np.array([[0.51, 0.49]], np.float32))
    assert verdicts(file, other, conch=label)["scores"] == Verdict(
        output="scores", passed=False, words="1 of 1 values differ; scores has the label 0, expected 1"
    )


@pytest.mark.parametrize(
    ("body", "number", "words"),
    [
        ([], 0, 'it is no object; a golden set is {"data": [{"INPUT": VALUES}]'),
        ({"data": {}}, 0, 'data is no list of samples; a golden set is {"data": [{"INPUT": VALUES}]'),
        (golden(), 2, "data has 2 samples, numbered from 0; there is none 2."),
        (golden(validation_data=[{}]), 1, "validation_data has 1 samples"),
        (golden(validation_data=None), 0, "validation_data is no list of samples"),
        (golden(data=[[{}]]), 0, "data[0] is a list: the steps of a sequence, which are not replayed."),
        (golden(data=[{"y": [1]}]), 0, "data[0].y: the model has no such input; it has x, texts."),
        (golden(data=[{"x": {"shape": [4]}}]), 0, "data[0].x: it is neither a list of values nor"),
        (golden(data=[{"x": {"b64": "?"}}]), 0, "data[0].x: its b64 is not base64."),
        (golden(data=[{"x": [1, 2, 3]}]), 0, "data[0].x: 3 values do not fill the shape [4]."),
        (
            golden(validation_data=[{"other": [1]}]),
            0,
            "validation_data[0].other: the model has no such output; it has scores, label, words.",
        ),
        (golden(conch={"tolerances": {"scores": "near"}}), 0, "conch.tolerances.scores: of FP32 [2] it may be"),
        (golden(conch={"tolerances": {"words": {"atol": 1, "rtol": 1}}}), 0, "conch.tolerances.words: of BYTES [1]"),
        (golden(conch={"tolerances": []}), 0, "conch.tolerances is no object."),
    ],
)
def test_a_golden_set_that_does_not_do_says_why(file: Path, body: Any, number: int, words: str) -> None:
    file.write_text(json.dumps(body))
    with pytest.raises(ClientError) as raised:
        read_sample(file, number, MODEL)
    assert str(raised.value).startswith(f"{file}: {words}")
