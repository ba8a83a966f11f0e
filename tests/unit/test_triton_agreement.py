"""Whether two servers answered alike: by name, datatype, shape and value, and in words without what was answered."""

from typing import Any, Final

import ml_dtypes
import numpy as np
import pytest

from conch.api.shadow import OutputTolerance, Shadow, ShadowShare, Tolerance
from conch.triton.agreement import disagreement
from conch.triton.tensors import DATATYPES, Tensor, dtype_of

PLAIN: Final = Shadow(percent=1).share


def tensor(datatype: str, values: Any, name: str = "y") -> Tensor:
    array = np.empty(len(values), dtype=object) if datatype == "BYTES" else None
    if array is not None:
        array[:] = values
        return Tensor(name=name, datatype=datatype, array=array)
    return Tensor(name=name, datatype=datatype, array=np.array(values).astype(dtype_of(datatype)))


def words(datatype: str, stable: Any, candidate: Any, share: ShadowShare = PLAIN) -> str:
    return disagreement([tensor(datatype, stable)], [tensor(datatype, candidate)], share)


def value(datatype: str, number: int) -> Any:
    return str(number).encode() if datatype == "BYTES" else bool(number) if datatype == "BOOL" else number


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_is_equal_to_itself_and_to_nothing_else(datatype: str) -> None:
    one, other = [value(datatype, each) for each in (0, 1, 1)], [value(datatype, each) for each in (0, 1, 0)]
    assert words(datatype, one, one) == ""
    assert words(datatype, one, other).startswith("y: 1 of 3 values differ")


@pytest.mark.parametrize(
    ("datatype", "near", "far"),
    [("FP64", 1e-4, 1e-2), ("FP32", 1e-4, 1e-2), ("FP16", 1e-3, 1e-2), ("BF16", 0, 1e-1)],
)
def test_floats_are_compared_within_the_tolerance(datatype: str, near: float, far: float) -> None:
    assert words(datatype, [1.0, 2.0], [1.0 + near, 2.0]) == ""
    assert words(datatype, [1.0, 2.0], [1.0 + far, 2.0]).startswith("y: 1 of 2 values differ, by up to 0.")


def test_bfloat16_of_its_own_kind() -> None:
    array = np.array([1.0, 3.0], dtype=ml_dtypes.bfloat16)
    one = [Tensor(name="y", datatype="BF16", array=array)]
    assert disagreement(one, one, PLAIN) == ""


def test_nan_is_equal_to_nan_and_to_nothing_else_and_infinities_are_themselves() -> None:
    nan, inf = float("nan"), float("inf")
    assert words("FP32", [nan, inf, -inf], [nan, inf, -inf]) == ""
    for other in ([1.0, inf, -inf], [nan, -inf, -inf], [nan, inf, 1e30]):
        assert words("FP32", [nan, inf, -inf], other).startswith("y: 1 of 3 values differ")


def test_texts_must_be_equal_and_are_not_shown() -> None:
    found = words("BYTES", [b"secret", b"b"], [b"secreT", b"b"])
    assert found == "y: 1 of 2 values differ"


def test_names_shapes_and_datatypes_are_told() -> None:
    stable = [tensor("FP32", [1.0], name="a"), tensor("FP32", [1.0], name="b")]
    assert disagreement(stable, stable[:1], PLAIN) == "b is not in the answer"
    more = [*stable, tensor("FP32", [9.0], name="c")]
    assert disagreement(stable, more, PLAIN) == "", "nobody asked for it before"
    assert words("FP32", [1.0], [1.0, 2.0]) == "y is FP32 [2], expected FP32 [1]"
    other = disagreement([tensor("FP32", [1.0])], [tensor("FP64", [1.0])], PLAIN)
    assert other == "y is FP64 [1], expected FP32 [1]"


def test_tolerances_are_those_of_the_spec() -> None:
    wide = Shadow(percent=1, tolerance=Tolerance(absolute=0.5)).share
    assert words("FP32", [1.0], [1.4], wide) == ""
    assert words("INT32", [1], [2], wide) == "y: 1 of 1 values differ", "integers are exact unless it is asked of them"
    of_output = Shadow(percent=1, outputs=(OutputTolerance(output="y", absolute=1),)).share
    assert words("INT32", [1], [2], of_output) == ""
    assert words("INT32", [1], [3], of_output).startswith("y: 1 of 1 values differ, by up to 2")
    assert words("BYTES", [b"1"], [b"2"], of_output) == "y: 1 of 1 values differ", "no number is near a text"


def test_the_label_may_be_all_that_counts() -> None:
    share = Shadow(percent=1, outputs=(OutputTolerance(output="y", same_label=True),)).share
    assert words("FP32", [0.1, 0.7, 0.2], [0.3, 0.4, 0.3], share) == ""
    assert words("FP32", [0.1, 0.7, 0.2], [0.5, 0.4, 0.1], share) == "y: 1 of 1 values differ"
    assert words("FP32", [0.1], [0.1], share) == ""


def test_empty_tensors_are_equal() -> None:
    assert words("FP32", [], []) == ""
    assert words("BYTES", [], []) == ""
