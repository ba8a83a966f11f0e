"""Golden sets as they are written, read back by their reader; and which samples and tolerances they get."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from conch.packaging.errors import PackagingError
from conch.packaging.golden import make_golden, tolerances_of
from conch.packaging.output.golden_set import golden_set, samples_that_fit
from conch.packaging.output.precision import Precision
from conch.packaging.tensors import Array
from conch.triton.golden_set import ENTRIES_MOST, EXACT, SameLabel, Within, read_golden_set
from conch.triton.tensors import ModelSignature, TensorSignature, dtype_of

NUMBERS = ("INT8", "UINT8", "INT32", "INT64", "UINT64", "FP16", "FP32", "FP64", "BOOL")


def signature(max_batch_size: int = 8, **tensors: tuple[str, tuple[int, ...]]) -> ModelSignature:
    """Inputs begin with x, outputs with y."""
    made = {
        name: TensorSignature(name=name, datatype=datatype, shape=shape) for name, (datatype, shape) in tensors.items()
    }
    return ModelSignature(
        inputs={name: each for name, each in made.items() if name.startswith("x")},
        outputs={name: each for name, each in made.items() if name.startswith("y")},
        max_batch_size=max_batch_size,
    )


def written(inputs: dict[str, Any], outputs: dict[str, Any], *, batched: bool = True, **datatypes: str) -> Any:
    return json.loads(golden_set(inputs, outputs, batched=batched, datatypes=datatypes, tolerances={}))


@given(data=st.data(), datatype=st.sampled_from(NUMBERS), count=st.integers(1, 3), width=st.integers(1, 70))
def test_numbers_come_back_bit_by_bit(data: st.DataObject, datatype: str, count: int, width: int) -> None:
    x = data.draw(arrays.arrays(dtype_of(datatype), (count, width)))
    model = signature(x=(datatype, (width,)), y=(datatype, (width,)))
    content = golden_set({"x": x}, {"y": x}, batched=True, datatypes={"x": datatype, "y": datatype}, tolerances={})
    back = read_golden_set(content, model)
    assert len(back) == count
    for sample, row in zip(back, x, strict=True):
        assert sample.inputs[0].array.tobytes() == row.tobytes()
        assert sample.expected[0].tensor.array.tobytes() == row.tobytes()


@given(texts=st.lists(st.binary(max_size=12), min_size=1, max_size=5))
def test_bytes_come_back_also_with_zeros_at_their_ends(texts: list[bytes]) -> None:
    x = np.empty((len(texts), 1), dtype=object)
    x[:, 0] = texts
    model = signature(x=("BYTES", (1,)), y=("BYTES", (1,)))
    content = golden_set({"x": x}, {"y": x}, batched=True, datatypes={"x": "BYTES", "y": "BYTES"}, tolerances={})
    assert [sample.inputs[0].array.tolist() for sample in read_golden_set(content, model)] == [[each] for each in texts]


def test_the_form_is_perf_analyzers() -> None:
    x = np.array([[0.1, 1e-10], [16777216, -0.0]], np.float32)
    body = written({"x": x}, {"y": np.array([["ß"], ["b"]])}, x="FP32", y="BYTES")
    assert body == {
        "data": [
            {"x": {"content": [0.1, 1e-10], "shape": [2]}},
            {"x": {"content": [16777216.0, -0.0], "shape": [2]}},
        ],
        "validation_data": [{"y": {"content": ["ß"], "shape": [1]}}, {"y": {"content": ["b"], "shape": [1]}}],
        "conch": {"dtypes": {"x": "FP32", "y": "BYTES"}, "tolerances": {}},
    }


@pytest.mark.parametrize(
    ("array", "datatype", "plain"),
    [
        (np.zeros(64, np.float32), "FP32", True),
        (np.zeros(65, np.float32), "FP32", False),
        (np.zeros(1, np.float16), "FP16", False),
        (np.array([np.nan], np.float32), "FP32", False),
        (np.array([-np.inf], np.float64), "FP64", False),
        (np.array([b"\xff"], object), "BYTES", False),
        (np.array(["text"]), "BYTES", True),
    ],
)
def test_what_is_written_as_base64(array: Array, datatype: str, plain: bool) -> None:
    body = written({"x": array}, {"y": array}, batched=False, x=datatype, y=datatype)
    assert isinstance(body["data"][0]["x"]["content"], list) is plain
    assert plain or body["data"][0]["x"]["content"].keys() == {"b64"}


def test_a_number_per_sample_is_a_tensor_of_one() -> None:
    body = written({"x": np.array([1, 2], np.float32)}, {"y": np.array([3, 4], np.int64)}, x="FP32", y="INT64")
    assert body["data"][1] == {"x": {"content": [2.0], "shape": [1]}}
    assert body["validation_data"][1] == {"y": {"content": [4], "shape": [1]}}


def test_limits() -> None:
    many = np.zeros((ENTRIES_MOST + 1, 1), np.float32)
    with pytest.raises(PackagingError, match="lower --golden-count"):
        written({"x": many}, {"y": many}, x="FP32", y="FP32")
    large = np.zeros((5, 1 << 19), np.float32)
    with pytest.raises(PackagingError, match="MiB"):
        written({"x": large}, {"y": large[:, :1]}, x="FP32", y="FP32")
    with pytest.raises(PackagingError, match="batch axes differ"):
        written({"x": many[:2]}, {"y": many[:3]}, x="FP32", y="FP32")


@pytest.mark.parametrize("texts", [False, True])
@pytest.mark.parametrize("width", [1, 64, 65, 8_000, 300_000])
def test_as_many_samples_as_are_said_to_fit_do(width: int, texts: bool) -> None:
    one = np.zeros((1, width), np.float32)
    answer = np.array([["x" * 40]]) if texts else np.zeros((1, 3), np.float32)
    fitting = samples_that_fit({"x": one}, {"y": answer}, batched=True)
    assert fitting >= 1
    count = min(fitting, ENTRIES_MOST)
    whole = {"x": np.broadcast_to(one, (count, width))}, {"y": np.broadcast_to(answer, (count, answer.shape[1]))}
    kind = "BYTES" if texts else "FP32"
    content = golden_set(*whole, batched=True, datatypes={"x": "FP32", "y": kind}, tolerances={})
    model = signature(x=("FP32", (width,)), y=(kind, (answer.shape[1],)))
    assert len(read_golden_set(content, model)) == count


def test_one_sample_may_be_too_large() -> None:
    assert samples_that_fit({"x": np.zeros((1, 1 << 22), np.uint8)}, {"y": np.zeros((1, 1))}, batched=True) == 0


MODEL = signature(x=("FP32", (2,)), y=("FP32", (2,)))
X = np.arange(20, dtype=np.float32).reshape(10, 2)


def golden(answer: Any, *, model: ModelSignature = MODEL, inputs: Any = None, **changes: Any) -> Any:
    told: dict[str, Any] = {"count": 4, "tolerances": {"y": "exact"}, "depends_on_batch": False}
    return make_golden(answer, model, {"x": X} if inputs is None else inputs, **(told | changes))


def twice(inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {"y": inputs["x"] * 2}


def test_samples_are_spread_and_answered_alone() -> None:
    asked: list[int] = []

    def answer(inputs: Mapping[str, Array]) -> dict[str, Array]:
        asked.append(len(inputs["x"]))
        return twice(inputs)

    made = golden(answer)
    samples = read_golden_set(made.content, MODEL)
    assert (made.samples, made.left_out) == (4, 0)
    assert [int(sample.inputs[0].array[0]) for sample in samples] == [0, 4, 10, 14]
    assert all((each.expected[0].tensor.array == each.inputs[0].array * 2).all() for each in samples)
    assert asked[-1] == 4, "at last in the batch that the agent makes of them"
    assert 1 in asked


def test_no_more_samples_than_there_are_or_fit() -> None:
    assert golden(twice, count=100).samples == 10
    wide = np.zeros((100, 300_000), np.float32)
    model = signature(x=("FP32", (300_000,)), y=("FP32", (1,)))
    made = golden(lambda given: {"y": given["x"][:, :1]}, model=model, inputs={"x": wide}, count=100)
    assert 1 <= made.samples < 8
    with pytest.raises(PackagingError, match="too large for a golden set"):
        golden(twice, inputs={"x": np.zeros((1, 1 << 22), np.float32)})


def test_a_model_without_batches_has_one_sample() -> None:
    model = signature(0, x=("FP32", (10, 2)), y=("FP32", (10, 2)))
    made = golden(twice, model=model)
    (sample,) = read_golden_set(made.content, model)
    assert sample.inputs[0].shape == (10, 2)


def test_answers_that_depend_on_the_batch_stop_it() -> None:
    words = r"otherwise in a batch than alone: .* samples differ; sample .*--max-batch 1"
    with pytest.raises(PackagingError, match=words):
        golden(lambda given: {"y": given["x"] - given["x"].mean(axis=0)})


def test_of_int8_the_samples_that_depend_on_it_are_left_out() -> None:
    def answer(inputs: Mapping[str, Array]) -> dict[str, Array]:
        x = inputs["x"]
        return {"y": np.where((x[:, :1] == 4) & (len(x) > 1), -x, x)}

    made = golden(answer, depends_on_batch=True)
    assert (made.samples, made.left_out) == (3, 1)
    assert [int(each.inputs[0].array[0]) for each in read_golden_set(made.content, MODEL)] == [0, 10, 14]


def test_where_none_is_left_there_is_no_golden_set() -> None:
    with pytest.raises(PackagingError, match="no sample whose answer is the same alone and in batches"):
        golden(lambda given: {"y": given["x"] + len(given["x"])}, depends_on_batch=True)


@pytest.mark.parametrize(
    ("datatype", "shape", "precision", "classes", "expected"),
    [
        ("FP32", (3,), Precision.FULL, True, Within()),
        ("BYTES", (1,), Precision.INT8, True, EXACT),
        ("INT64", (1,), Precision.INT8, True, EXACT),
        ("FP32", (3,), Precision.INT8, True, SameLabel()),
        ("FP32", (1,), Precision.INT8, True, Within(atol=0.008, rtol=1e-2)),
        ("FP32", (3,), Precision.INT8, False, Within(atol=0.008, rtol=1e-2)),
        ("FP32", (3,), Precision.HALF, True, Within(atol=2e-3, rtol=1e-2)),
        ("FP16", (3,), Precision.FULL, True, Within(atol=2e-3, rtol=1e-2)),
    ],
)
def test_tolerances(datatype: str, shape: tuple[int, ...], precision: Precision, classes: bool, expected: Any) -> None:
    model = signature(x=("FP32", (1,)), y=(datatype, shape))
    told = tolerances_of(model, precision, batch_deviation=0.004, classes=classes)
    y = np.full((1, *shape), b"a" if datatype == "BYTES" else 1).astype(dtype_of(datatype))
    x = np.zeros((1, 1), np.float32)
    content = golden_set({"x": x}, {"y": y}, batched=True, datatypes={"x": "FP32", "y": datatype}, tolerances=told)
    (sample,) = read_golden_set(content, model)
    assert sample.expected[0].tolerance == expected
