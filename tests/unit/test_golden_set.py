"""golden.json: what is read, what is refused with which words, and how answers are held against it."""

import base64
import json
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import serialize_byte_tensor

from conch.triton import golden_set
from conch.triton.comparison import Difference, compare, difference, summary
from conch.triton.golden_set import EXACT, Expected, GoldenSetError, SameLabel, Sample, Within, read_golden_set
from conch.triton.tensors import Array, ModelSignature, Tensor, TensorSignature

TYPES = {"x": "FP32", "count": "INT8", "texts": "BYTES", "on": "BOOL", "open": "FP32"}
SHAPES: dict[str, tuple[int, ...]] = {"x": (4,), "count": (1,), "texts": (-1,), "on": (2,), "open": (-1, -1)}


def signatures(types: dict[str, str], shapes: dict[str, tuple[int, ...]]) -> dict[str, TensorSignature]:
    return {name: TensorSignature(name=name, datatype=types[name], shape=shapes[name]) for name in types}


MODEL = ModelSignature(
    inputs=signatures(TYPES, SHAPES),
    outputs=signatures(
        {"scores": "FP32", "label": "INT64", "words": "BYTES", "one": "FP32", "half": "FP16"},
        {"scores": (-1,), "label": (1,), "words": (1,), "one": (1,), "half": (2,)},
    ),
    max_batch_size=8,
)
X = {"content": [1, 2, 3, 4], "shape": [4]}
SCORES = {"content": [0.25, 0.75], "shape": [2]}


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def content(**changes: Any) -> bytes:
    return json.dumps({"data": [{"x": X}], "validation_data": [{"scores": SCORES}]} | changes).encode()


def read(**changes: Any) -> tuple[Sample, ...]:
    return read_golden_set(content(**changes), MODEL)


def read_input(name: str, value: Any) -> Array:
    (sample,) = read(data=[{name: value}])
    return sample.inputs[0].array


FOUR = np.array([1, 2, 3, 4], np.float32)


@pytest.mark.parametrize(
    "value",
    [
        [1, 2, 3, 4],
        [1.0, 2, 3, 4.0],
        {"content": [1, 2, 3, 4]},
        {"content": [1, 2, 3, 4], "shape": [4], "whatever": 1},
        {"content": [[1, 2], [3, 4]], "shape": [4]},
        {"b64": b64(FOUR.tobytes())},
        {"b64": b64(FOUR.tobytes()), "shape": [4]},
        {"content": {"b64": b64(FOUR.tobytes())}},
        {"content": {"b64": b64(FOUR.tobytes())}, "shape": [4]},
    ],
)
def test_every_form_that_perf_analyzer_takes_is_read(value: Any) -> None:
    array = read_input("x", value)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, FOUR)


def test_texts_and_truths_and_integers() -> None:
    assert read_input("texts", ["ü", ""]).tolist() == ["ü".encode(), b""]
    raw = bytes(serialize_byte_tensor(np.array([b"\xff\0", b""], dtype=object)).item())
    assert read_input("texts", {"b64": b64(raw)}).tolist() == [b"\xff\0", b""]
    assert read_input("texts", {"content": [], "shape": [0]}).shape == (0,)
    assert read_input("on", [True, False]).dtype == bool
    assert read_input("count", [-128]).dtype == np.int8
    assert read_input("count", [7.0]).tolist() == [7]


def test_what_a_missing_shape_means() -> None:
    assert read_input("open", [[1, 2], [3, 4], [5, 6]]).shape == (3, 2)
    assert read_input("texts", ["a", "b", "c"]).shape == (3,)
    with pytest.raises(GoldenSetError, match=r"data\[0\]\.open: it needs a shape: the model's \[-1, -1\] is open"):
        read_input("open", [1, 2])


def test_conchs_own_key_says_datatypes_and_tolerances() -> None:
    both = {"scores": SCORES, "label": [7], "words": ["w"], "half": [1, 2]}
    (sample,) = read(validation_data=[both])
    tolerances = {each.tensor.name: each.tolerance for each in sample.expected}
    assert tolerances == {"scores": Within(atol=1e-4, rtol=1e-3), "label": EXACT, "words": EXACT, "half": Within()}
    ours = {
        "tolerances": {"scores": "label", "label": {"atol": 1, "rtol": 0}, "half": "exact"},
        "dtypes": {"half": "BF16", "x": "FP32"},
        "baseline": "sha256:...",
    }
    (sample,) = read(validation_data=[both], conch=ours, comment="ignored")
    tolerances = {each.tensor.name: each.tolerance for each in sample.expected}
    assert tolerances == {"scores": SameLabel(), "label": Within(atol=1, rtol=0), "words": EXACT, "half": EXACT}
    half = next(each.tensor for each in sample.expected if each.tensor.name == "half")
    assert (half.datatype, half.array.dtype) == ("BF16", np.dtype(ml_dtypes.bfloat16))


def test_the_example_of_the_documentation_is_read() -> None:
    text = (Path(__file__).parents[2] / "docs" / "sources.md").read_text().partition("## The golden set")[2]
    types = {"x": "FP32", "texts": "BYTES", "scores": "FP32", "embedding": "FP32"}
    known = signatures(types, {"x": (4,), "texts": (-1,), "scores": (2,), "embedding": (2,)})
    example = text.partition("```json\n")[2].partition("```")[0]
    (sample,) = read_golden_set(example.encode(), ModelSignature(inputs=known, outputs=known))
    assert [each.array.tolist() for each in sample.inputs[1:]] == [[b"a", b"b"]]
    assert {each.tensor.name: (each.tensor.array.tolist(), each.tolerance) for each in sample.expected} == {
        "scores": ([0.25, 0.75], SameLabel()),
        "embedding": ([1, 2], Within()),
    }
    assert f"{golden_set.FILE_BYTES_MOST >> 20} MiB and {golden_set.ENTRIES_MOST} samples" in " ".join(text.split())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {}}, "data is no list of samples"),
        ({"data": [], "validation_data": []}, "data has 0 entries and validation_data 0"),
        ({"data": [{"x": X}] * 2}, "data has 2 entries and validation_data 1; each sample needs its answer"),
        ({"validation_data": None}, "validation_data is no list of samples"),
        ({"validation_data": [{}]}, "validation_data[0] expects no output"),
        ({"data": [{"x": X}] * 257, "validation_data": [{"scores": SCORES}] * 257}, "257 samples; 256 are allowed"),
        ({"data": [[{"x": X}]]}, "data[0] is a list: the steps of a sequence, which are not replayed"),
        ({"data": [1]}, "data[0] is no object"),
        ({"data": [{"y": X}]}, "data[0].y: the model has no such input; it has x, count, texts, on, open"),
        ({"validation_data": [{"x": X}]}, "validation_data[0].x: the model has no such output; it has scores, label"),
        ({"data": [{"x": 1}]}, 'data[0].x: it is neither a list of values nor {"b64": "..."}'),
        ({"data": [{"x": {"shape": [4]}}]}, "data[0].x: it is neither a list"),
        ({"data": [{"x": {"b64": 1}}]}, "data[0].x: it is neither a list"),
        ({"data": [{"x": {"b64": "?"}}]}, "data[0].x: its b64 is not base64"),
        ({"data": [{"x": {"b64": "ü"}}]}, "data[0].x: its b64 is not base64"),
        ({"data": [{"x": {"b64": b64(b"123")}}]}, "data[0].x: its 3 bytes are no FP32"),
        ({"data": [{"texts": {"b64": b64(b"\x09\0\0\0a")}}]}, "data[0].texts: its 5 bytes are no BYTES"),
        ({"data": [{"x": [1, 2, 3]}]}, "data[0].x: 3 values do not fill the shape [4]"),
        ({"data": [{"x": X | {"shape": [2, 3]}}]}, "data[0].x: 4 values do not fill the shape [2, 3]"),
        ({"data": [{"x": X | {"shape": [-1]}}]}, "data[0].x: the shape [-1] is no list of lengths"),
        ({"data": [{"x": X | {"shape": "4"}}]}, "data[0].x: the shape 4 is no list of lengths"),
        ({"data": [{"x": X | {"shape": [True, 4]}}]}, "data[0].x: the shape [True, 4] is no list of lengths"),
        ({"data": [{"open": [[1, 2], [3]]}]}, "data[0].open: its lists do not all have the same length"),
        ({"data": [{"x": ["a", 1, 2, 3]}]}, "data[0].x: its values are no FP32, such as 'a'"),
        ({"data": [{"x": [None, 1, 2, 3]}]}, "data[0].x: its values are no FP32, such as 'None'"),
        ({"data": [{"x": [True, 1, 2, 3]}]}, "data[0].x: its values are no FP32, such as 'True'"),
        ({"data": [{"x": [{}, 1, 2, 3]}]}, "data[0].x: its values are no FP32, such as '{}'"),
        ({"data": [{"x": [1e300, 1, 2, 3]}]}, "data[0].x: not all of its values are FP32, such as 1e+300"),
        ({"data": [{"x": [10**400, 1, 2, 3]}]}, "data[0].x: not all of its values are FP32"),
        ({"data": [{"count": [0.5]}]}, "data[0].count: its values are no INT8, such as '0.5'"),
        ({"data": [{"count": [128]}]}, "data[0].count: not all of its values are INT8 (-128 to 127)"),
        ({"data": [{"on": [1, 0]}]}, "data[0].on: its values are no BOOL, such as '1'"),
        ({"data": [{"texts": [1]}]}, "data[0].texts: its values are no texts (BYTES), such as '1'"),
        ({"data": [{"texts": ["\ud800"]}]}, "data[0].texts: its texts are no Unicode; give them as bytes"),
        ({"conch": []}, "conch is no object"),
        ({"conch": {"tolerances": []}}, "conch.tolerances is no object"),
        ({"conch": {"tolerances": {"score": "exact"}}}, "conch.tolerances.score: the model has no such output"),
        ({"conch": {"tolerances": {"scores": "near"}}}, 'of FP32 [2] it may be "exact", of numbers atol and rtol'),
        ({"conch": {"tolerances": {"scores": {"atol": -1, "rtol": 0}}}}, "conch.tolerances.scores: of FP32 [2]"),
        ({"conch": {"tolerances": {"scores": {"atol": math.inf, "rtol": 0}}}}, "conch.tolerances.scores: of FP32"),
        ({"conch": {"dtypes": {"x": "FLOAT"}}}, "conch.dtypes.x: 'FLOAT' is no datatype of Triton"),
        ({"conch": {"dtypes": {"x": "FP64"}}}, "data[0].x: it was recorded as FP64, the model takes FP32"),
        (
            {"validation_data": [{"words": ["w"]}], "conch": {"tolerances": {"words": {"atol": 1, "rtol": 1}}}},
            "conch.tolerances.words: of BYTES [1]",
        ),
        (
            {"validation_data": [{"one": [1]}], "conch": {"tolerances": {"one": "label"}}},
            "conch.tolerances.one: of FP32 [1]",
        ),
    ],
)
def test_a_set_that_does_not_do_names_the_entry_and_the_tensor(changes: Any, words: str) -> None:
    with pytest.raises(GoldenSetError) as raised:
        read(**changes)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "it is no JSON"),
        (b"{", "it is no JSON"),
        (b"\xff", "it is no JSON"),
        (b"[]", "it is no object"),
        (b"[" * 200_000, "it is nested too deeply"),
        (b" " * (golden_set.FILE_BYTES_MOST + 1), "it has more than 8 MiB; record fewer samples, or as b64"),
    ],
)
def test_a_file_that_is_no_set_says_so(text: bytes, words: str) -> None:
    with pytest.raises(GoldenSetError, match=words):
        read_golden_set(text, MODEL)


def test_a_set_that_takes_too_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden_set, "SET_BYTES_MOST", 39)
    with pytest.raises(GoldenSetError, match=r"data\[1\]\.x: up to here the set takes more than"):
        read(data=[{"x": X}] * 3, validation_data=[{"scores": SCORES}] * 3)
    monkeypatch.setattr(golden_set, "TENSOR_VALUES_MOST", 3)
    with pytest.raises(GoldenSetError, match=r"data\[0\]\.x: it has 4 values; 3 are allowed"):
        read()


@given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4))
def test_floats_come_through_json_bit_by_bit(values: list[float]) -> None:
    recorded = np.array(values, np.float32)
    assert read_input("x", recorded.tolist()).tobytes() == recorded.tobytes()


@given(raw=st.binary(min_size=16, max_size=16))
def test_bytes_come_through_b64_whatever_they_are(raw: bytes) -> None:
    assert read_input("x", {"b64": b64(raw)}).tobytes() == raw


@given(value=st.integers(-(2**63), 2**63 - 1))
def test_long_integers_are_exact(value: int) -> None:
    (sample,) = read(validation_data=[{"label": [value]}])
    assert int(sample.expected[0].tensor.array[0]) == value


def tensor(values: Any, datatype: str = "FP32", name: str = "y") -> Tensor:
    types: dict[str, Any] = {
        "FP16": np.float16,
        "BF16": ml_dtypes.bfloat16,
        "FP32": np.float32,
        "FP64": np.float64,
        "INT64": np.int64,
        "UINT8": np.uint8,
        "BOOL": bool,
        "BYTES": object,
    }
    return Tensor(name=name, datatype=datatype, array=np.array(values, types[datatype]))


def words_of(got: Any, wanted: Any, tolerance: Within | SameLabel = Within(), datatype: str = "FP32") -> str | None:  # noqa: B008
    expected = Expected(tensor=tensor(wanted, datatype), tolerance=tolerance)
    found = compare(3, expected, tensor(got, datatype))
    return found.words if found else None


INF, NAN = math.inf, math.nan
LOOSE = Within(atol=2, rtol=0)


@pytest.mark.parametrize(
    ("got", "wanted", "tolerance", "datatype"),
    [
        ([0.2503, 0.75], [0.25, 0.75], Within(), "FP32"),
        ([NAN, INF, -INF], [NAN, INF, -INF], Within(), "FP32"),
        ([NAN, 0.0], [NAN, -0.0], EXACT, "FP32"),
        ([1.0, NAN], [1.0, NAN], Within(), "FP16"),
        ([1.0, NAN], [1.0, NAN], Within(), "BF16"),
        ([1.0, NAN], [1.0, NAN], EXACT, "BF16"),
        ([2**53 + 1], [2**53 + 1], EXACT, "INT64"),
        ([2**63 - 1], [2**63 - 3], LOOSE, "INT64"),
        ([0, 255], [0, 255], EXACT, "UINT8"),
        ([1, 254], [3, 255], LOOSE, "UINT8"),
        ([True, False], [True, False], EXACT, "BOOL"),
        ([b"a\0", b""], [b"a\0", b""], EXACT, "BYTES"),
        ([[0.1, 0.9], [0.6, 0.4]], [[0.4, 0.6], [0.9, 0.1]], SameLabel(), "FP32"),
        ([0.4999, 0.5001, 0.0], [0.5, 0.5, 0.0], SameLabel(), "FP32"),
        ([], [], Within(), "FP32"),
        ([], [], EXACT, "BYTES"),
        (1.0, 1.0, Within(), "FP64"),
    ],
)
def test_what_passes(got: Any, wanted: Any, tolerance: Any, datatype: str) -> None:
    assert words_of(got, wanted, tolerance, datatype) is None


@pytest.mark.parametrize(
    ("got", "wanted", "tolerance", "datatype", "words"),
    [
        (
            [0.25, 0.76],
            [0.25, 0.75],
            Within(),
            "FP32",
            "y[1] is 0.75999999, expected 0.75: off by 0.01, allowed 0.00085",
        ),
        (
            [0.5, 0.9],
            [0.25, 0.75],
            Within(),
            "FP32",
            "y[0] is 0.5, expected 0.25: off by 0.25, allowed 0.00035; 2 of 2",
        ),
        ([1.0, NAN], [1.0, 2.0], Within(), "FP32", "y[1] is nan, expected 2: off by nan"),
        ([1.0], [NAN], Within(), "FP32", "y[0] is 1, expected nan"),
        ([1.0], [INF], Within(), "FP32", "y[0] is 1, expected inf: must be equal; 1 of 1"),
        ([1.0], [INF], LOOSE, "FP32", "y[0] is 1, expected inf: must be equal; 1 of 1"),
        ([-INF], [INF], Within(), "FP32", "y[0] is -inf, expected inf"),
        ([1.0001], [1.0], EXACT, "FP32", "y[0] is 1.00010002, expected 1: must be equal; 1 of 1 values differ"),
        ([2**53], [2**53 + 1], EXACT, "INT64", f"y[0] is {2**53}, expected {2**53 + 1}: must be equal"),
        ([2**63 - 1], [2**63 - 4], LOOSE, "INT64", "off by 3, allowed 2"),
        ([0], [255], LOOSE, "UINT8", "y[0] is 0, expected 255: off by 255, allowed 2"),
        ([False], [True], EXACT, "BOOL", "y[0] is False, expected True"),
        ([[b"a", b"v\n"]], [[b"a", b"w" * 90]], EXACT, "BYTES", r"y[0, 1] is 'v\n', expected '" + "w" * 48 + "'…"),
        ([b"\xff"], [b"\xfe"], EXACT, "BYTES", r"y[0] is '\\xff', expected '\\xfe'"),
        ([[0.6, 0.4]], [[0.4, 0.6]], SameLabel(), "FP32", "y[0] has the label 0, expected 1; 1 of 1"),
        ([0.4, 0.6], [0.6, 0.4], SameLabel(), "FP16", "y has the label 1, expected 0; 1 of 1"),
        ([NAN, 0.6], [0.6, 0.4], SameLabel(), "FP32", "y has the label NaN, expected 0"),
        ([0.6, 0.4], [0.6, NAN], SameLabel(), "FP32", "y has the label 0"),
        ([1.0, 2.0], [1.0], Within(), "FP32", "y is FP32 [2], expected FP32 [1]"),
        (1.5, 1.0, Within(), "FP64", "y is 1.5, expected 1: off by 0.5"),
    ],
)
def test_what_does_not_pass_and_how_that_is_said(
    got: Any, wanted: Any, tolerance: Any, datatype: str, words: str
) -> None:
    assert words in (words_of(got, wanted, tolerance, datatype) or "passes")


def test_an_answer_of_another_type_or_none_at_all_does_not_pass() -> None:
    expected = Expected(tensor=tensor([1.0]), tolerance=Within())
    other = compare(0, expected, tensor([1.0], "FP64"), batch=4)
    assert other == Difference(
        sample=0, words="sample 0 in a batch of 4: y is FP64 [1], expected FP32 [1]", severity=INF
    )
    missing = compare(1, expected, None)
    assert missing == Difference(sample=1, words="sample 1: y is not in the answer", severity=INF)


def test_of_a_large_tensor_the_worst_value_is_named_wherever_it_lies() -> None:
    wanted = np.zeros((200, 1000), np.float32)
    got = wanted.copy()
    got[3, 4], got[150, 7] = 0.5, -2
    expected = Expected(tensor=Tensor(name="y", datatype="FP32", array=wanted), tolerance=Within())
    found = compare(0, expected, Tensor(name="y", datatype="FP32", array=got))
    assert found is not None
    assert found.words == ("sample 0: y[150, 7] is -2, expected 0: off by 2, allowed 0.0001; 2 of 200000 values differ")
    assert found.severity == pytest.approx(2 / 1e-4)


def test_the_words_of_a_difference_are_one_short_line() -> None:
    found = difference(2, "Traceback:\n  File x\n" + "y" * 900, batch=3)
    assert found.words.startswith("sample 2 in a batch of 3: Traceback: File x yyy")
    assert (len(found.words), found.words[-1]) == (326, "…")


@given(
    wanted=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=5),
    share=st.floats(-2, 2),
)
def test_the_tolerance_is_a_share_and_a_floor(wanted: list[float], share: float) -> None:
    right = np.array(wanted, np.float64)
    got = right + share * (1e-4 + 1e-3 * np.abs(right))
    if abs(abs(share) - 1) < 1e-6:
        return
    assert (words_of(got, right, datatype="FP64") is None) is (abs(share) < 1)


def test_the_worst_sample_comes_first_and_each_but_once() -> None:
    def one(sample: int, words: str, severity: float) -> Difference:
        return Difference(sample=sample, words=words, severity=severity)

    assert summary(5, []) == (0, "")
    found = [one(0, "a little", 1.5), one(2, "much", 90), one(2, "more", 91), one(4, "no number", INF)]
    assert summary(5, found) == (3, "3 of 5 samples differ; no number; more; a little")
    batch_after_alone = [one(1, "alone", INF), one(0, "in a batch", INF), one(1, "in a batch", INF)]
    assert summary(2, batch_after_alone) == (2, "2 of 2 samples differ; alone; in a batch")
    mismatches, message = summary(256, [one(number, "w" * 90, 2) for number in range(256)])
    assert (mismatches, len(message), message[-1]) == (256, 1024, "…")
