"""What a person gave `conch package`, read into a Request: texts and files are checked before anything runs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from conch.packaging.errors import PackagingError
from conch.packaging.request import (
    DEFAULT_GOLDEN_COUNT,
    DEFAULT_MAX_BATCH_SIZE,
    DEFAULT_MAX_DROP,
    DEFAULT_MAX_LENGTH,
    DynamicAxis,
    Head,
    HeldOut,
    Optimise,
    Request,
)
from conch.packaging.requirements import SourceKind, source_kind
from conch.packaging.source.example_input import parse_example, read_npz
from conch.packaging.tensors import Array

TARGET: Final = "target"
_DYNAMIC: Final = re.compile(r"(?P<input>.+):(?P<axis>\d+)=(?P<name>[A-Za-z_]\w*):(?P<least>\d+)\.\.(?P<most>\d+)")
_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """As they were given; None is what was not."""

    source: str
    output: Path
    weights: Path | None = None
    example_input: str | None = None
    name: str | None = None
    version: int = 1
    max_batch: int = DEFAULT_MAX_BATCH_SIZE
    dynamic: Sequence[str] = ()
    labels: Path | None = None
    head: str | None = None
    """None: softmax where there are labels."""
    tokenizer: Path | None = None
    max_length: int = DEFAULT_MAX_LENGTH
    optimise: str | None = None
    data: Path | None = None
    calibration: Path | None = None
    finetune: str | None = None
    max_drop: float = DEFAULT_MAX_DROP
    golden: Path | None = None
    golden_count: int = DEFAULT_GOLDEN_COUNT
    target_image: str | None = None


def request_of(options: Options) -> Request:
    """The request; raises PackagingError naming the option that is wrong."""
    dynamic = tuple(dynamic_axis(text) for text in options.dynamic)
    wishes = optimise_of(options.optimise, finetune=options.finetune, max_drop=options.max_drop)
    labels = () if options.labels is None else read_labels(options.labels)
    example = None if options.example_input is None else parse_example(options.example_input)
    head = Head(options.head) if options.head is not None else Head.SOFTMAX if labels else Head.NONE
    return Request(
        source=options.source,
        out=options.output,
        name=default_name(options.source) if options.name is None else options.name,
        version=options.version,
        weights=options.weights,
        example=example,
        dynamic=dynamic,
        max_batch_size=options.max_batch,
        labels=labels,
        head=head,
        tokenizer=options.tokenizer,
        max_length=options.max_length,
        optimise=wishes,
        held_out=None if options.data is None else read_held_out(options.data),
        calibration=None if options.calibration is None else _arrays("--calibration", options.calibration),
        golden=None if options.golden is None else _without_target(_arrays("--golden", options.golden)),
        golden_count=options.golden_count,
        target_image=options.target_image,
    )


def default_name(source: str) -> str:
    """Of `nets/mlp.onnx` mlp, of `train.py:Net` net, of a pipeline its own; checked later as any name is."""
    if source_kind(source) is SourceKind.PIPELINE:
        from conch.packaging.pipeline.steps import read_pipeline

        return read_pipeline(Path(source)).name
    file, _, member = source.rpartition(":")
    stem = member if file.endswith(".py") else Path(source).stem
    return _NOT_IN_NAMES.sub("-", stem.lower()).strip("-_")


def dynamic_axis(text: str) -> DynamicAxis:
    """Of `INPUT:AXIS=NAME:LEAST..MOST`. Raises PackagingError."""
    match = _DYNAMIC.fullmatch(text)
    if match is None:
        raise PackagingError(
            f"--dynamic {text}: give INPUT:AXIS=NAME:LEAST..MOST, such as input_ids:1=seq:2..128: axis 1 of input_ids "
            "is called seq and has 2 to 128 places"
        )
    axis = DynamicAxis(
        input=match["input"],
        axis=int(match["axis"]),
        name=match["name"],
        least=int(match["least"]),
        most=int(match["most"]),
    )
    if axis.axis < 1:
        raise PackagingError(f"--dynamic {text}: axis 0 is the batch, which is dynamic by itself; count from 1")
    if not 1 <= axis.least < axis.most:
        raise PackagingError(
            f"--dynamic {text}: {axis.least}..{axis.most} is no range of lengths; give the shorter first"
        )
    return axis


def optimise_of(text: str | None, *, finetune: str | None, max_drop: float) -> Optimise:
    """Of `int8,fp16,prune=0.5`. Raises PackagingError."""
    int8 = fp16 = False
    prune: float | None = None
    for word in (part.strip() for part in (text or "").split(",")):
        match word.partition("="):
            case ("", "", ""):
                if text:
                    raise _unknown_optimisation(text)
            case ("int8", "", ""):
                int8 = True
            case ("fp16", "", ""):
                fp16 = True
            case ("prune", "=", share):
                prune = _share(text or "", share)
            case _:
                raise _unknown_optimisation(text or "")
    if finetune is not None and prune is None:
        raise PackagingError("--finetune trains a pruned module again; it needs --optimise prune=SHARE")
    if finetune is not None:
        file, _, function = finetune.rpartition(":")
        if not (file.endswith(".py") and function.isidentifier()):
            raise PackagingError(f"--finetune {finetune}: give FILE.py:FUNCTION, such as train.py:fit")
        if not Path(file).is_file():
            raise PackagingError(f"--finetune {finetune}: there is no file {file}")
    return Optimise(int8=int8, fp16=fp16, prune=prune, finetune=finetune, max_drop=max_drop)


def _share(text: str, share: str) -> float:
    try:
        value = float(share)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise PackagingError(f"--optimise {text}: prune={share} is no share of channels; give one such as prune=0.5")
    return value


def _unknown_optimisation(text: str) -> PackagingError:
    return PackagingError(
        f"--optimise {text}: give int8, fp16, prune=SHARE or several of them with commas, such as int8,prune=0.5"
    )


def read_labels(path: Path) -> tuple[str, ...]:
    """One label a line, in the order of the classes. Raises PackagingError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise PackagingError(f"--labels {path} is not UTF-8: {error}; save it as UTF-8") from error
    except OSError as error:
        raise PackagingError(f"--labels {path} cannot be read: {error.strerror}") from error
    while lines and not lines[-1].strip():
        lines.pop()
    labels = tuple(line.strip() for line in lines)
    if not labels:
        raise PackagingError(f"--labels {path} is empty; write one label a line, in the order of the classes")
    if "" in labels:
        raise PackagingError(f"--labels {path}: line {labels.index('') + 1} is empty; write one label a line")
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise PackagingError(f"--labels {path}: {twice!r} is there twice; give each class a label of its own")
    return labels


def read_held_out(path: Path) -> HeldOut:
    """An npz with the inputs by name and `target`. Raises PackagingError."""
    arrays = _arrays("--data", path)
    if TARGET not in arrays:
        raise PackagingError(
            f"--data {path} has no array {TARGET!r} beside {', '.join(arrays)}: the right answers, class numbers "
            "(integers) or values (floats)"
        )
    target = arrays.pop(TARGET)
    if not arrays:
        raise PackagingError(f"--data {path} has nothing but {TARGET!r}; add an array for each input, by its name")
    if target.ndim < 1 or (rows := {name: array.shape[:1] for name, array in arrays.items()}) != dict.fromkeys(
        rows, target.shape[:1]
    ):
        lengths = ", ".join(f"{name} {list(array.shape)}" for name, array in (*arrays.items(), (TARGET, target)))
        raise PackagingError(f"--data {path}: its arrays do not have one row per sample each: {lengths}")
    if target.dtype.kind not in "iufb":
        raise PackagingError(
            f"--data {path}: {TARGET!r} is of {target.dtype}; give class numbers (integers) or values (floats)"
        )
    return HeldOut(inputs=arrays, target=target)


def _arrays(option: str, path: Path) -> dict[str, Array]:
    try:
        return read_npz(path)
    except PackagingError as error:
        raise PackagingError(f"{option}: {error}") from error


def _without_target(arrays: dict[str, Array]) -> dict[str, Array]:
    """Of the held-out data's file, which may be given as golden set too."""
    return {name: array for name, array in arrays.items() if name != TARGET} or arrays
