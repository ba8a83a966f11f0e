"""Inputs from files: what is read, and what is refused with which words."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conch.client.errors import ClientError
from conch.client.input_files import from_json, read_inputs, write_npz
from conch.client.metadata import ModelMetadata, Signature, check_inputs, signatures
from conch.client.tensors import from_array, from_raw, from_values
from conch.triton.tensors import DATATYPES, dtype_of, to_raw

MODEL = ModelMetadata(
    name="sentiment",
    inputs=signatures(
        [
            Signature(name="x", datatype="FP32", shape=(-1, 4)),
            Signature(name="count", datatype="INT8", shape=(-1, 1)),
            Signature(name="texts", datatype="BYTES", shape=(-1, -1)),
        ]
    ),
    outputs={},
)
TAKES = "The model sentiment takes x FP32 [-1, 4], count INT8 [-1, 1], texts BYTES [-1, -1]."


def one(**fields: Any) -> Any:
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]} | fields]}


def test_the_protocols_form_takes_flat_and_nested_data() -> None:
    for data in ([1, 2, 3, 4], [[1, 2, 3, 4]]):
        (tensor,) = from_json(one(data=data), MODEL)
        assert (tensor.name, tensor.datatype, tensor.shape, tensor.array.dtype.name) == ("x", "FP32", (1, 4), "float32")


def test_the_short_form_has_the_models_datatypes() -> None:
    x, texts = from_json({"x": [[1, 2, 3, 4]], "texts": [["ü", "b"]]}, MODEL)
    assert (x.datatype, x.array.dtype.name, x.shape) == ("FP32", "float32", (1, 4))
    assert texts.array.tolist() == [["ü".encode(), b"b"]]


def test_whole_numbers_may_be_written_as_floats_and_one_value_without_a_list() -> None:
    (count,) = from_json({"count": [[1.0], [-128.0]]}, MODEL)
    assert (count.array.dtype.name, count.array.tolist()) == ("int8", [[1], [-128]])
    (one_value,) = from_json({"x": 0.5}, MODEL)
    assert (one_value.shape, one_value.array.tolist()) == ((), 0.5)


def test_a_model_may_have_an_input_that_is_called_inputs() -> None:
    inputs = signatures([Signature(name="inputs", datatype="FP32", shape=(-1,))])
    (tensor,) = from_json({"inputs": [1, 2]}, ModelMetadata(name="m", inputs=inputs, outputs={}))
    assert tensor.array.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([1], TAKES),
        ({"y": [1]}, f"The model has no input 'y'. {TAKES}"),
        ({"inputs": [{"name": "x", "data": [1]}]}, "The input 'x' has no datatype, shape."),
        (one(parameters={}), "has parameters, which conch infer does not send"),
        (one() | {"outputs": []}, "sends inputs and nothing else; remove outputs"),
        (one(shape=[1, 5]), "x: 4 values do not fill the shape [1, 5]."),
        (one(shape=[-1, 4]), "has the shape [-1, 4]; it is a list of lengths"),
        (one(datatype="FLOAT"), "'FLOAT' is no datatype; there are BOOL, INT8,"),
        ({"x": [[1, 2], [3]]}, "x: its lists do not all have the same length."),
        ({"x": [["a", "b"]]}, "x: its values are no FP32, such as "),
        ({"x": [[True]]}, "x: its values are no FP32, such as "),
        ({"x": [[1, True]]}, "x: its values are no FP32, such as 'True'."),
        ({"x": [[1e300]]}, "x: not all of its values are FP32, such as 1e+300."),
        ({"count": [[0.5]]}, "count: its values are no INT8, such as '0.5'."),
        ({"count": [[float("nan")]]}, "count: its values are no INT8, such as 'nan'."),
        ({"count": [[300]]}, "count: not all of its values are INT8 (-128 to 127)."),
        ({"texts": [[1]]}, "texts: its values are no texts (BYTES), such as '1'."),
        ({"texts": [["\ud800"]]}, "texts: its texts are no Unicode; give them as bytes."),
    ],
)
def test_json_that_does_not_do_says_why(body: Any, words: str) -> None:
    with pytest.raises(ClientError) as raised:
        from_json(body, MODEL)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((1, 4)), "The input x is FP64, the model takes FP32."),
        (np.zeros(4, np.float32), "has the shape [4], the model takes [-1, 4] (-1: any length). Its first axis is the"),
        (np.zeros((1, 5), np.float32), "The input x has the shape [1, 5], the model takes [-1, 4]"),
    ],
)
def test_arrays_are_held_against_the_models_metadata(array: Any, words: str) -> None:
    with pytest.raises(ClientError) as raised:
        check_inputs([from_array("x", array)], MODEL)
    assert words in str(raised.value)


def test_an_unknown_input_and_one_given_twice_are_refused_and_a_missing_one_is_left_to_triton() -> None:
    x = from_array("x", np.zeros((1, 4), np.float32))
    check_inputs([x], MODEL)
    with pytest.raises(ClientError, match="given twice"):
        check_inputs([x, x], MODEL)
    with pytest.raises(ClientError, match="no input 'y'"):
        check_inputs([from_array("y", x.array)], MODEL)


def test_npz_takes_every_datatype_and_comes_back_equal(tmp_path: Path) -> None:
    texts = np.array([b"\0a\0", "ü", b""], dtype=object)
    numbers = [from_array(each, np.array([0, 1], dtype_of(each))) for each in DATATYPES if each != "BYTES"]
    written = (*numbers, from_array("texts", texts))
    write_npz(tmp_path / "a.npz", written)
    read = read_inputs(tmp_path / "a.npz", MODEL)
    assert [(each.name, each.datatype) for each in read] == [(each.name, each.datatype) for each in written]
    for before, after in zip(written, read, strict=True):
        np.testing.assert_array_equal(before.array, after.array)


def test_npz_of_numpy_itself_is_read_with_its_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.zeros((1, 4), ">f4"), texts=np.array([["ü"]]), more=np.array([b"b"], dtype=object))
    x, texts, more = read_inputs(path, MODEL)
    assert (x.datatype, texts.datatype, texts.array.tolist()) == ("FP32", "BYTES", [["ü".encode()]])
    assert more.array.tolist() == [b"b"]


class RunsAProgram:
    """What a pickle can do to who reads it."""

    def __reduce__(self) -> Any:
        return os.system, ("exit 1",)


def test_a_pickled_program_in_an_npz_is_not_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([RunsAProgram()], dtype=object))
    with pytest.raises(ClientError, match=r"is no npz file of arrays: .* does not hold posix\.system"):
        read_inputs(tmp_path / "a.npz", MODEL)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", None, "cannot be read: No such file"),
        ("a.json", b"{", "is not JSON"),
        ("a.json", b"[" * 100_000, "is nested too deeply"),
        ("a.npz", None, "cannot be read: No such file"),
        ("a.npz", b"PK", "is no npz file of arrays"),
        ("a.csv", b"1,2", "inputs are read from .json or .npz files"),
    ],
)
def test_a_file_that_does_not_do_says_why(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ClientError, match=words):
        read_inputs(tmp_path / name, MODEL)


def test_an_array_that_the_protocol_does_not_know_is_refused() -> None:
    with pytest.raises(ClientError, match="numpy's complex128 has no counterpart"):
        from_array("x", np.zeros(1, complex))


@pytest.mark.parametrize("datatype", DATATYPES)
def test_the_protocols_bytes_come_back(datatype: str) -> None:
    values = ["a", ""] if datatype == "BYTES" else [True, False] if datatype == "BOOL" else [1, 0]
    tensor = from_values("x", datatype, values, [2, 1])
    again = from_raw("x", datatype, to_raw(tensor), (2, 1))
    assert again.array.dtype == dtype_of(datatype)
    np.testing.assert_array_equal(again.array, tensor.array)


def test_bytes_that_are_not_whole_are_refused() -> None:
    for datatype, raw in (("FP32", b"123"), ("BYTES", b"\x09\0\0\0a"), ("FP32", b"1234" * 2)):
        with pytest.raises(ClientError):
            from_raw("x", datatype, raw, (1,))
    assert to_raw(from_array("x", np.array([], dtype=object))) == b""


def test_an_array_without_values_keeps_its_shape() -> None:
    assert from_array("texts", np.empty((0, 3), dtype=object)).shape == (0, 3)


def test_npz_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="cannot be written"):
        write_npz(tmp_path / "missing" / "a.npz", ())


def test_numpy_reads_what_is_written(tmp_path: Path) -> None:
    arrays = {"scores": np.array([[0.25, 0.75]], np.float32), "words": np.array([[b"w"]], dtype=object)}
    write_npz(tmp_path / "a.npz", tuple(from_array(name, array) for name, array in arrays.items()))
    with np.load(io.BytesIO((tmp_path / "a.npz").read_bytes()), allow_pickle=True) as read:
        assert read["words"].tolist() == [[b"w"]]
        assert read["scores"].dtype == np.float32
