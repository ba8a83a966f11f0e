"""The samples that static quantisation takes the ranges of activations from."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from onnx import ModelProto, ValueInfoProto, helper

from conch.packaging.errors import PackagingError
from conch.packaging.graph.axes import dims_of, inputs_of, is_symbolic
from conch.packaging.tensors import Array, Tensors, rows, taken

_BATCH: Final = 32
DEFAULT_SAMPLES_MOST: Final = 1024
"""Of data that was not given for calibration so many samples are taken: more hardly change the ranges."""


def default_calibration(*candidates: Tensors | None) -> Tensors | None:
    """The first of the sets that has samples, thinned out evenly; None where none has."""
    for tensors in candidates:
        if tensors and min(_samples(array) for array in tensors.values()) > 0:
            count = rows(tensors)
            return taken(
                tensors, np.unique(np.linspace(0, count - 1, min(count, DEFAULT_SAMPLES_MOST)).astype(np.intp))
            )
    return None


def check_calibration(graph: ModelProto, calibration: Tensors) -> None:
    """Raises PackagingError, with the tensor, what is expected and what was found, unless the graph can run on it."""
    expected = _inputs(graph)
    if not calibration:
        raise PackagingError(
            f"there is no calibration data: static int8 needs samples of {_listed(expected)}; "
            "give them with --calibration, or held-out data with --data"
        )
    for name, value in expected.items():
        if name not in calibration:
            raise PackagingError(
                f"the calibration data has no tensor {name!r}: expected {_described(value)}, found only "
                f"{', '.join(calibration)}; name its arrays like the graph's inputs"
            )
    for name in calibration:
        if name not in expected:
            raise PackagingError(
                f"the calibration data has a tensor {name!r} that is no input of the graph: expected only "
                f"{_listed(expected)}, found {_described_array(calibration[name])}; leave it out"
            )
    batched = _batch(expected) is not None
    for name, value in expected.items():
        _check_tensor(name, value, calibration[name], batched=batched)
    if batched:
        _check_counts({name: _samples(calibration[name]) for name in expected})


class CalibrationBatches:
    """The samples in batches of one shape, as onnxruntime's calibrators read them.

    The last batch is filled up with samples from the start: the ranges stay the same, and calibrators that stack what
    they see fail on batches of different lengths.
    """

    def __init__(self, graph: ModelProto, calibration: Tensors) -> None:
        """`calibration` has passed check_calibration."""
        size = _batch(_inputs(graph))
        self._batches = _batches(calibration, size) if size else iter([dict(calibration)])

    def get_next(self) -> dict[str, Array] | None:
        """The next batch; None at the end."""
        return next(self._batches, None)


def _batches(calibration: Tensors, size: int) -> Iterator[dict[str, Array]]:
    count = rows(calibration)
    for start in range(0, count, size):
        yield taken(calibration, np.arange(start, start + size) % count)


def _inputs(graph: ModelProto) -> dict[str, ValueInfoProto]:
    return {value.name: value for value in inputs_of(graph.graph)}


def _batch(inputs: Mapping[str, ValueInfoProto]) -> int | None:
    """How many samples go in at once; None where the inputs have no common axis 0, so the data is one run as it is."""
    first = {dims[0] if dims else None for dims in map(_dims, inputs.values())}
    if all(isinstance(length, str) for length in first):
        return _BATCH
    length = first.pop()
    return length if not first and isinstance(length, int) else None


def _check_counts(counts: Mapping[str, int]) -> None:
    first, count = next(iter(counts.items()))
    for name, other in counts.items():
        if other != count:
            raise PackagingError(
                f"the calibration data's tensor {name!r} has {other} samples: expected {count}, as in {first!r}; "
                "axis 0 is the batch and has one length"
            )
    if count == 0:
        raise PackagingError(f"the calibration data's tensor {first!r} has no samples: expected one at least")


def _check_tensor(name: str, value: ValueInfoProto, array: Array, *, batched: bool) -> None:
    dtype, dims = _dtype(value), _dims(value)
    # Strings come as `U`, `S` or objects; onnxruntime takes them all.
    same_type = array.dtype.kind in "OSU" if dtype.kind == "O" else array.dtype == dtype
    same_shape = len(dims) == array.ndim and all(
        isinstance(dim, str) or dim == length or (batched and axis == 0)
        for axis, (dim, length) in enumerate(zip(dims, array.shape, strict=True))
    )
    if not same_type or not same_shape:
        advice = f"; convert it with .astype({dtype.name!r})" if same_shape and dtype.kind != "O" else ""
        raise PackagingError(
            f"the calibration data's tensor {name!r} does not fit the graph: expected {_described(value)}, found "
            f"{_described_array(array)}{advice}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        where = f"sample {int(np.argwhere(~np.isfinite(array))[0][0])}" if batched else "it"
        raise PackagingError(
            f"the calibration data's tensor {name!r} has NaN or infinity in {where}: expected finite numbers, or no "
            "range can be taken from them; leave such samples out"
        )


def _samples(array: Array) -> int:
    return int(array.shape[0]) if array.ndim else 0


def _dtype(value: ValueInfoProto) -> np.dtype[Any]:
    return np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def _dims(value: ValueInfoProto) -> tuple[int | str, ...]:
    return tuple((dim.dim_param or "?") if is_symbolic(dim) else dim.dim_value for dim in dims_of(value))


def _described(value: ValueInfoProto) -> str:
    dtype = _dtype(value)
    return f"{'string' if dtype.kind == 'O' else dtype.name}[{','.join(map(str, _dims(value)))}]"


def _described_array(array: Array) -> str:
    return f"{'string' if array.dtype.kind in 'OSU' else array.dtype.name}[{','.join(map(str, array.shape))}]"


def _listed(inputs: Mapping[str, ValueInfoProto]) -> str:
    return ", ".join(f"{name} = {_described(value)}" for name, value in inputs.items())
