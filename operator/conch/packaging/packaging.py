"""Packages a model: load, export, clean, verify, optimise, head, configure, golden set, record, write, digest.

Everything happens in memory until it is whole; only then is a file written (output/tree.py).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from onnx import ModelProto

from conch.packaging.errors import PackagingError
from conch.packaging.golden import Golden, make_golden, tolerances_of
from conch.packaging.graph.axes import batch_axis, fixed_axes, inputs_of, require_batch_axis
from conch.packaging.graph.clean import clean, to_bytes
from conch.packaging.graph.head import add_head
from conch.packaging.graph.parity import Parity, measure_parity
from conch.packaging.graph.session import Runner
from conch.packaging.graph.target_image import check_target
from conch.packaging.optimise.optimise import optimise
from conch.packaging.optimise.variants import Choice, Variant
from conch.packaging.output.config import LABELS_FILE, model_config
from conch.packaging.output.precision import Precision, precision_of
from conch.packaging.output.record import RECORD_FILE, Made, finite, record, tool_versions
from conch.packaging.output.tree import ModelFiles, write_model
from conch.packaging.progress import Progress, Silent
from conch.packaging.replay import Answer
from conch.packaging.request import Head, HeldOut, Request
from conch.packaging.requirements import SourceKind, check_name, check_request
from conch.packaging.served import ensemble_answer, graph_answer, signature, tokenise_answer
from conch.packaging.source.onnx_file import read_onnx
from conch.packaging.tensors import Array, Tensors, taken
from conch.packaging.text.ensemble import MODEL_SUFFIX, TOKENISE_SUFFIX
from conch.packaging.texts import TextModel, Texts
from conch.store.digest import tree_digest
from conch.store.errors import StoreError
from conch.triton.layout import DEFAULT_ONNX, GOLDEN_SET

_TOOLS: Final = ("conch", "onnx", "onnxruntime")
_TORCH_TOOLS: Final = ("torch", "onnxscript")
_PRUNING_TOOL: Final = "torch-pruning"
_TEXT_TOOL: Final = "tokenizers"
_COMPARED_MOST: Final = 32
"""Samples that the graph is held against its source with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A model that lies in its repository, ready to be pushed."""

    path: Path
    """What to push: the model's folder, or the repository of a model of several parts."""
    digest: str
    """Of what lies at `path`, as `spec.model.source.digest` wants it."""
    name: str
    version: int
    models: tuple[str, ...]
    """All that were written; the one that clients call is `name`."""
    config: Any
    """Its ModelConfig."""
    parity: Parity | None
    variants: tuple[Variant, ...]
    choice: Choice | None
    """Both are empty of a pipeline, whose steps are served as they are."""
    golden_count: int
    """Samples in the golden set; 0 where there is none."""
    notes: tuple[str, ...] = ()
    """What the person should know though it stops nothing."""


def package(request: Request, progress: Progress | None = None) -> Package:
    """Package what the request asks for. Raises PackagingError; then nothing has been written.

    The same request gives the same digest, with the same versions of the tools. With `optimise` that holds as long as
    the same variant is the fastest.
    """
    progress = progress or Silent()
    kind = check_request(request)
    if kind is SourceKind.PIPELINE:
        return _pipeline(request, progress)
    notes: list[str] = []
    texts = Texts.of(request)
    loaded = _from_torch(request, texts, progress) if kind is SourceKind.TORCH else _from_onnx(request, texts, progress)
    batched = batch_axis(loaded.graph)
    most_batch = request.max_batch_size if batched else 0
    if not batched:
        notes.append(f"it takes no batches: axis 0 of {', '.join(fixed_axes(loaded.graph))} is fixed in the graph")
    if loaded.text is not None:
        progress.stage("check the tokenizer")
        loaded.text.check_runs(Runner(to_bytes(loaded.graph)))
    choice, variants = optimise(
        loaded.graph,
        wishes=request.optimise,
        held_out=loaded.held_out,
        calibration=loaded.calibration,
        inputs=loaded.inputs,
        most_batch=most_batch,
        pruned=loaded.pruned,
        progress=progress,
    )
    progress.stage("configure and make the golden set")
    graph = clean(add_head(choice.kept.graph, head=request.head, labels=request.labels))
    if request.target_image is not None:
        check_target(graph, request.target_image)
    models, answer = _configured(request, graph, most_batch, loaded.text)
    entry, precision = models[request.name], precision_of(graph)
    golden = make_golden(
        answer,
        signature(entry.config),
        _golden_inputs(request, loaded, batched=batched),
        count=request.golden_count,
        tolerances=tolerances_of(
            signature(entry.config),
            precision,
            batch_deviation=choice.kept.batch_deviation,
            classes=choice.kept.score is None or choice.kept.score.metric == "accuracy",
        ),
        depends_on_batch=precision is Precision.INT8,
    )
    if golden.left_out:
        notes.append(
            f"{golden.left_out} samples are not in the golden set: beside others in a batch they get another answer"
        )
    models[request.name] = _with_proof(request, loaded, graph, choice, variants, golden, models)
    return _written(
        request, models, progress, parity=loaded.parity, variants=variants, choice=choice, golden=golden, notes=notes
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """A graph that is verified to be what was given, and data that fits it."""

    graph: ModelProto
    parity: Parity
    origin: Mapping[str, Any]
    tools: Sequence[str]
    inputs: Tensors
    """Some samples, or the one that a model without batches takes."""
    held_out: HeldOut | None
    calibration: Tensors | None
    pruned: ModelProto | None = None
    text: TextModel | None = None


def _from_torch(request: Request, texts: Texts | None, progress: Progress) -> _Loaded:
    # Only here: torch takes seconds to import, and the graphs of others need none of it.
    progress.stage("load torch and the module")
    from conch.packaging.source.torch_export import export_module, run_module
    from conch.packaging.source.torch_module import load_module

    module = load_module(request.source, request.weights)
    if texts is not None:
        request = texts.for_module(request, module)
    example = request.example if request.example is not None else _some(_data(request))
    progress.stage("export")
    graph = clean(export_module(module, example, request.dynamic), dynamic=request.dynamic)
    require_batch_axis(graph)
    origin: dict[str, Any] = {"kind": "torch", "object": request.source.rpartition(":")[2]}
    if request.weights is not None:
        origin["weights"] = _file_sha256(request.weights)
    loaded = _verified(
        request, texts, graph, origin, (*_TOOLS, *_TORCH_TOOLS), progress, lambda given: run_module(module, given)
    )
    if request.optimise.prune is None:
        return loaded
    progress.stage("prune and train again" if request.optimise.finetune else "prune")
    from conch.packaging.source.torch_pruning import prune_module

    pruned = prune_module(module, example, share=request.optimise.prune, finetune=request.optimise.finetune)
    smaller = clean(export_module(pruned, example, request.dynamic), dynamic=request.dynamic)
    require_batch_axis(smaller)
    measure_parity(lambda given: run_module(pruned, given), Runner(to_bytes(smaller)), _some(loaded.inputs))
    return replace(loaded, pruned=smaller, tools=(*loaded.tools, _PRUNING_TOOL))


def _from_onnx(request: Request, texts: Texts | None, progress: Progress) -> _Loaded:
    progress.stage("read the graph")
    file = Path(request.source)
    given = read_onnx(file)
    graph = clean(given, dynamic=request.dynamic)
    origin = {"kind": "onnx", "sha256": _file_sha256(file)}
    return _verified(request, texts, graph, origin, _TOOLS, progress, Runner(to_bytes(given)).run)


def _verified(
    request: Request,
    texts: Texts | None,
    graph: ModelProto,
    origin: Mapping[str, Any],
    tools: Sequence[str],
    progress: Progress,
    reference: Callable[[Tensors], Mapping[str, Array]],
) -> _Loaded:
    if request.target_image is not None:
        check_target(graph, request.target_image)
    text = None if texts is None else texts.model(graph)
    if text is not None:
        request = text.encoded(request)
        tools = (*tools, _TEXT_TOOL)
    _require_tensors(graph)
    if batch_axis(graph):
        _require_rows(request)
        inputs = _some(_data(request))
    else:
        inputs = _data(request)
    progress.stage("verify")
    parity = measure_parity(reference, Runner(to_bytes(graph)), inputs)
    return _Loaded(
        graph=graph,
        parity=parity,
        origin=origin,
        tools=tools,
        inputs=inputs,
        held_out=request.held_out,
        calibration=request.calibration,
        text=text,
    )


def _require_tensors(graph: ModelProto) -> None:
    if not inputs_of(graph.graph) or not graph.graph.output:
        raise PackagingError("the graph needs at least one input and one output; export the model with them")
    names = [each.name for each in graph.graph.output]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise PackagingError(f"the graph has two outputs {twice!r}, and Triton tells them by name; leave one out")


def _require_rows(request: Request) -> None:
    """Raises PackagingError where the arrays given do not have one row per sample each."""
    for option, tensors in (
        ("--example-input", request.example),
        ("--golden", request.golden),
        ("--data", None if request.held_out is None else request.held_out.inputs),
    ):
        if tensors is not None and (
            len({each.shape[:1] for each in tensors.values()}) > 1 or not all(each.ndim for each in tensors.values())
        ):
            lengths = ", ".join(f"{name} {list(each.shape)}" for name, each in tensors.items())
            raise PackagingError(
                f"{option}: the model takes batches, so axis 0 of every array counts the samples and is as long: "
                f"{lengths}"
            )


def _data(request: Request) -> Tensors:
    """The samples nearest to what will be asked: the golden set's, the held-out ones, the example."""
    held_out = None if request.held_out is None else request.held_out.inputs
    found = next((each for each in (request.golden, held_out, request.example) if each is not None), None)
    if found is None:
        raise PackagingError("nothing is given to run the model on; give --example-input, --golden or --data")
    return found


def _some(tensors: Tensors) -> Tensors:
    return tensors if any(not each.ndim for each in tensors.values()) else taken(tensors, slice(_COMPARED_MOST))


def _golden_inputs(request: Request, loaded: _Loaded, *, batched: bool) -> Tensors:
    if loaded.text is not None:
        return loaded.text.golden_inputs(request)
    data = _data(request)
    # A graph with a batch axis that is served without batches takes one sample, axis and all.
    return taken(data, slice(1)) if batched and not request.max_batch_size else data


def _configured(
    request: Request, graph: ModelProto, most_batch: int, text: TextModel | None
) -> tuple[dict[str, ModelFiles], Answer]:
    """The models to write, the one that clients call last, and how that answers."""
    plain = request.head is Head.NONE
    name = request.name
    config = model_config(graph, name=name, max_batch_size=most_batch, labels_file=plain and bool(request.labels))
    content = to_bytes(graph)
    files: dict[str, bytes | Path] = {f"{request.version}/{DEFAULT_ONNX}": content}
    if request.labels:
        if plain:
            _require_classes(config, len(request.labels))
        files[LABELS_FILE] = ("\n".join(request.labels) + "\n").encode()
    runner = Runner(content)
    if text is None:
        return {name: ModelFiles(config=config, version=request.version, files=files)}, graph_answer(config, runner)
    configs, tokenise_files = text.parts(config, request.version)
    tokenise, inner = configs[name + TOKENISE_SUFFIX], configs[name + MODEL_SUFFIX]
    own_files: dict[str, dict[str, bytes | Path]] = {tokenise.name: tokenise_files, inner.name: files}
    models = {
        each: ModelFiles(config=own, version=request.version, files=own_files.get(each, {}))
        for each, own in configs.items()
    }
    members = {
        tokenise.name: tokenise_answer(tokenise, text.packaged_tokenizer(tokenise_files, request.version)),
        inner.name: graph_answer(inner, runner),
    }
    return models, ensemble_answer(configs[name], members)


def _require_classes(config: Any, count: int) -> None:
    if any(output.dims[-1] == count for output in config.output):
        return
    found = ", ".join(f"{output.name} {list(output.dims)}" for output in config.output)
    raise PackagingError(
        f"there are {count} labels, and no output has {count} values on its last axis: {found}; give --labels the file "
        "with one label per class"
    )


def _with_proof(
    request: Request,
    loaded: _Loaded,
    graph: ModelProto,
    choice: Choice,
    variants: Sequence[Variant],
    golden: Golden,
    models: Mapping[str, ModelFiles],
) -> ModelFiles:
    """The model that clients call, with its golden set and record."""
    files = {
        f"{name}/{path}": _sha256(content)
        for name, model in models.items()
        for path, content in model.files.items()
        if isinstance(content, bytes)
    }
    files[f"{request.name}/{GOLDEN_SET}"] = _sha256(golden.content)
    more: dict[str, Any] = {"head": request.head.value, "labels": len(request.labels)}
    if request.tokenizer is not None:
        more["maxLength"] = request.max_length
    if request.target_image is not None:
        more["targetImage"] = request.target_image
    made = Made(
        name=request.name,
        version=request.version,
        source=loaded.origin,
        graph=graph,
        files=files,
        parity={"largest": loaded.parity.largest, "output": loaded.parity.output},
        variants=[_variant(each) for each in variants],
        kept=choice.kept.name,
        batch_deviation=finite(choice.kept.batch_deviation),
        golden_samples=golden.samples,
        tools=tool_versions(loaded.tools),
        more=more,
    )
    entry = models[request.name]
    return replace(entry, files={**entry.files, GOLDEN_SET: golden.content, RECORD_FILE: record(made)})


def _variant(variant: Variant) -> dict[str, Any]:
    """Without its latency, which is another one each time."""
    score = None if variant.score is None else {"metric": variant.score.metric, "value": variant.score.value}
    return {
        "name": variant.name,
        "bytes": variant.bytes,
        "score": score,
        "batchDeviation": finite(variant.batch_deviation),
        "deviation": None if variant.parity is None else finite(variant.parity.largest),
    }


def _pipeline(request: Request, progress: Progress) -> Package:
    """Its steps are others' models and programs, which run only in Triton: nothing is run here."""
    from conch.packaging.pipeline.generate import generate

    progress.stage("read the pipeline")
    generated = generate(Path(request.source), version=request.version)
    if generated.name != request.name:
        raise PackagingError(
            f"the pipeline is named {generated.name!r} in {request.source}; leave --name out, or change it there"
        )
    for each in generated.models:
        check_name(each, request.version)
    notes = ["a pipeline has no golden set of its own: its steps run only in Triton (conch infer --golden takes one)"]
    return _written(request, dict(generated.models), progress, notes=notes)


def _written(
    request: Request,
    models: Mapping[str, ModelFiles],
    progress: Progress,
    *,
    parity: Parity | None = None,
    variants: tuple[Variant, ...] = (),
    choice: Choice | None = None,
    golden: Golden | None = None,
    notes: Sequence[str] = (),
) -> Package:
    progress.stage("write")
    write_model(request.out, models)
    alone = len(models) == 1
    others = sorted(
        each.name for each in request.out.iterdir() if each.is_dir() and each.name not in models and not alone
    )
    if others:
        notes = (
            *notes,
            f"{request.out} also holds {', '.join(others)}: the digest is of all, and all are pushed. A repository of "
            "its own (--output) keeps them apart",
        )
    path = request.out / request.name if alone else request.out
    try:
        digest = tree_digest(path)
    except StoreError as error:
        raise PackagingError(f"the model is in {path}, which has no digest: {error.message}") from error
    return Package(
        path=path,
        digest=digest,
        name=request.name,
        version=request.version,
        models=tuple(models),
        config=models[request.name].config,
        parity=parity,
        variants=variants,
        choice=choice,
        golden_count=golden.samples if golden is not None else 0,
        notes=tuple(notes),
    )


def _file_sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
