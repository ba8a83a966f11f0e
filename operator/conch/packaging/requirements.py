"""What has to be true of a request before anything is loaded, exported or measured."""

import re
from enum import Enum, auto
from pathlib import Path
from typing import Final

from onnx import ModelProto
from pydantic import ValidationError

from conch.api.model import Model, ModelSource
from conch.packaging.errors import PackagingError
from conch.packaging.graph.target_image import check_target
from conch.packaging.output.config import LABELS_FILE
from conch.packaging.output.tree import require_place
from conch.packaging.request import MAX_BATCH_SIZE_MOST, MAX_LENGTH_MOST, Head, Request
from conch.packaging.tensors import Tensors
from conch.packaging.text.ensemble import MODEL_SUFFIX, TOKENISE_SUFFIX
from conch.triton.golden_set import ENTRIES_MOST

_ANY_SOURCE: Final = ModelSource(uri="https://models.example.com/model")
_MODULE: Final = re.compile(r"(?P<file>.+\.py):(?P<name>[^:]+)")
_YAML: Final = (".yaml", ".yml")


class SourceKind(Enum):
    """What is packaged."""

    TORCH = auto()
    ONNX = auto()
    PIPELINE = auto()


def source_kind(source: str) -> SourceKind:
    """By its form; raises PackagingError where it has none of those, or there is no such file."""
    match = _MODULE.fullmatch(source)
    file = Path(match["file"] if match else source)
    if match:
        kind = SourceKind.TORCH
    elif file.suffix == ".onnx":
        kind = SourceKind.ONNX
    elif file.suffix in _YAML:
        kind = SourceKind.PIPELINE
    else:
        hint = f"; which module of it? {source}:net" if file.suffix == ".py" else ""
        raise PackagingError(
            f"{source} is nothing that can be packaged{hint}: give FILE.py:NAME (a torch module, its class or a "
            "function without arguments that makes it), FILE.onnx, or FILE.yaml (a pipeline)"
        )
    if not file.is_file():
        raise PackagingError(f"there is no file {file}, of which {source} is to be packaged; look at the path")
    return kind


def check_request(request: Request) -> SourceKind:
    """Raises PackagingError with what is missing, contradicts itself or cannot be written; reads no large file."""
    kind = source_kind(request.source)
    check_name(request.name, request.version)
    require_place(request.out, request.name, request.version)
    if kind is SourceKind.PIPELINE:
        _check_pipeline(request)
        return kind
    if kind is SourceKind.ONNX:
        _check_onnx(request)
    if request.target_image is not None:
        # An empty graph fits every image that there is.
        check_target(ModelProto(), request.target_image)
    _check_data(request)
    _check_optimise(request)
    if request.head is not Head.NONE and not request.labels:
        raise PackagingError(f"--head {request.head.value} makes labels of scores; give the labels' file with --labels")
    if not 0 <= request.max_batch_size <= MAX_BATCH_SIZE_MOST:
        raise PackagingError(
            f"--max-batch {request.max_batch_size}: give 1 to {MAX_BATCH_SIZE_MOST}, or 0 for a model without batches"
        )
    if broken := next((each for each in request.labels if len(each.splitlines()) != 1), None):
        raise PackagingError(f"the label {broken!r} is not one line, as a label is in {LABELS_FILE}")
    if not 1 <= request.golden_count <= ENTRIES_MOST:
        raise PackagingError(f"--golden-count {request.golden_count}: a golden set has 1 to {ENTRIES_MOST} samples")
    if request.tokenizer is not None:
        _check_text(request)
    for option, file in (("--weights", request.weights), ("--tokenizer", request.tokenizer)):
        if file is not None and not file.exists():
            raise PackagingError(f"{option} {file}: there is no such file")
    return kind


def check_name(name: str, version: int) -> None:
    """By the rules of `spec.model`. Raises PackagingError."""
    try:
        Model(name=name, version=version, source=_ANY_SOURCE)
    except ValidationError as error:
        wrong = {str(each["loc"][0]): each["msg"] for each in error.errors()}
        if "name" in wrong:
            raise PackagingError(
                f"{name!r} cannot be a model's name: up to 63 of a-z, 0-9, - and _, and a letter or digit first; give "
                "one with --name"
            ) from error
        raise PackagingError(
            f"{version} cannot be a version ({wrong.get('version', error)}); give --version 1 or more"
        ) from error


def _check_pipeline(request: Request) -> None:
    for option, given in (
        ("--weights", request.weights),
        ("--example-input", request.example),
        ("--dynamic", request.dynamic),
        ("--labels", request.labels),
        ("--tokenizer", request.tokenizer),
        ("--optimise", request.optimise.asks_something),
        ("--data", request.held_out),
        ("--calibration", request.calibration),
        ("--golden", request.golden),
        ("--target-image", request.target_image),
    ):
        if given:
            raise PackagingError(
                f"{option} is for one model, and {request.source} is a pipeline of several; package its steps first, "
                "each with its own options, and name their folders in it"
            )


def _check_onnx(request: Request) -> None:
    for what, given in (
        ("--weights", request.weights is not None),
        ("--optimise prune", request.optimise.prune is not None),
        ("--finetune", request.optimise.finetune is not None),
    ):
        if given:
            raise PackagingError(
                f"{what} is for torch modules, and {request.source} is a finished graph; package FILE.py:NAME, or "
                "leave it out"
            )


def _check_data(request: Request) -> None:
    if request.example is None and (request.golden is None and request.held_out is None):
        raise PackagingError(
            "nothing is given to run the model on; give --example-input (x.npz, or 'input=float32[2,10]'), or "
            "--golden or --data with an npz that has an array for each input: with it the model is verified, and its "
            "answers are the golden set"
        )
    for option, tensors in (
        ("--example-input", request.example),
        ("--golden", request.golden),
        ("--calibration", request.calibration),
        ("--data", None if request.held_out is None else request.held_out.inputs),
    ):
        if tensors is not None and not tensors:
            raise PackagingError(f"{option}: there is no array in it; give one for each input, by its name")
        if tensors is not None and (wrong := next((name for name, each in tensors.items() if not each.size), None)):
            raise PackagingError(f"{option}: the array {wrong!r} is empty")


def _check_optimise(request: Request) -> None:
    wishes = request.optimise
    if wishes.asks_something and request.held_out is None:
        raise PackagingError(
            "--optimise needs --data: an npz with the inputs by name and `target`, which the model has not been "
            "trained on. Without it nobody knows what the optimisation costs"
        )
    if request.calibration is not None and not wishes.int8:
        raise PackagingError("--calibration is for --optimise int8, which is not asked for; add it, or leave both out")
    if not 0 <= wishes.max_drop <= 1:
        raise PackagingError(
            f"--max-drop {wishes.max_drop:g}: the score is at most 1; give a drop of 0 to 1, such as 0.01"
        )


def _check_text(request: Request) -> None:
    if not 1 <= request.max_length <= MAX_LENGTH_MOST:
        raise PackagingError(f"--max-length {request.max_length}: a text has 1 to {MAX_LENGTH_MOST} tokens")
    if request.max_batch_size < 1:
        raise PackagingError("a text model takes batches; give --max-batch 1 or more")
    given = [
        tensors
        for tensors in (request.golden, None if request.held_out is None else request.held_out.inputs, request.example)
        if tensors is not None
    ]
    if not any(texts_of(tensors) is not None for tensors in given):
        raise PackagingError(
            "a text model's golden set is made of texts; give --golden or --data with an npz that has an array of str: "
            "np.savez('golden.npz', text=np.array(['one text', 'another']))"
        )
    # Also of the names of its parts.
    for suffix in (TOKENISE_SUFFIX, MODEL_SUFFIX):
        check_name(request.name + suffix, request.version)
        require_place(request.out, request.name + suffix, request.version)


def texts_of(tensors: Tensors) -> list[str] | None:
    """The texts, where there is an array of them; else these are tensors."""
    for array in tensors.values():
        if array.dtype.kind in "US":
            return [_text(number, each) for number, each in enumerate(array.reshape(-1).tolist())]
    return None


def _text(number: int, value: str | bytes) -> str:
    try:
        text = value.decode() if isinstance(value, bytes) else str(value)
        text.encode()
    except UnicodeError as error:
        raise PackagingError(f"text {number} of those to package with is no Unicode: {error}") from error
    return text
