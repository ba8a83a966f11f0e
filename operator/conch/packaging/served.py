"""The models of a repository as they answer, run on this machine: graphs by onnxruntime, ensembles step by step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from tritonclient.grpc import model_config_pb2

from conch.packaging.errors import PackagingError
from conch.packaging.graph.session import Runner
from conch.packaging.replay import Answer
from conch.packaging.tensors import Array
from conch.packaging.text import tokenizer as tokenizer_file
from conch.packaging.text.ensemble import TOKENISE_SUFFIX
from conch.packaging.text.triton_model import TEXT, TOKENISE_FILES, tokenise
from conch.triton.config_pbtxt import is_ensemble
from conch.triton.ensemble import MEMBERS_MOST
from conch.triton.layout import DEFAULT_ONNX
from conch.triton.tensors import BYTES, ModelSignature, TensorSignature

_RUNS_MOST: Final = 1024
"""Models that a request to an ensemble may run through here: ensembles of ensembles multiply."""
_PLATFORMS: Final = {"onnxruntime_onnx": "onnxruntime"}


class NotHere(Exception):
    """A model that only Triton can run (a Python step, another backend); the message says which."""


def signature(config: Any) -> ModelSignature:
    """What Triton will tell of a model with this configuration."""
    return ModelSignature(
        inputs=_tensors(config.input),
        outputs=_tensors(config.output),
        max_batch_size=config.max_batch_size,
        one_answer=not config.model_transaction_policy.decoupled and not config.HasField("sequence_batching"),
    )


def answerer(configs: Mapping[str, Any], root: Path, name: str, version: int) -> Answer:
    """The model `name`, of those in `root` with these configurations. Raises NotHere, or PackagingError.

    The models in `configs` hold nothing but plain files; nothing else is opened.
    """
    return _Answerer(configs=configs, root=root).answer(name, version, above=())[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answerer:
    configs: Mapping[str, Any]
    root: Path
    known: dict[tuple[str, int], tuple[Answer, int]] = field(default_factory=dict)
    """Each model once, with the number of models that a request to it runs."""

    def answer(self, name: str, version: int, above: tuple[str, ...]) -> tuple[Answer, int]:
        config = self.configs.get(name)
        if config is None:
            raise PackagingError(f"there is no model {name!r} in the repository; package it again, whole")
        if name in above:
            raise PackagingError(f"the ensemble {name!r} contains itself")
        if (name, version) not in self.known:
            self.known[name, version] = (
                self._ensemble(config, name, version, (*above, name))
                if is_ensemble(config)
                else (self._alone(config, name, version), 1)
            )
        return self.known[name, version]

    def _ensemble(self, config: Any, name: str, version: int, above: tuple[str, ...]) -> tuple[Answer, int]:
        if len(above) > MEMBERS_MOST:
            raise NotHere(f"{name} is nested more than {MEMBERS_MOST} deep")
        members: dict[str, Answer] = {}
        runs = 1
        for step in config.ensemble_scheduling.step:
            own = step.model_version
            if own < 1:
                # -1 is the latest; a package's members have the ensemble's own version, where it has that.
                own = latest(self.root / step.model_name, version) if step.model_name in self.configs else version
            members[step.model_name], more = self.answer(step.model_name, own, above)
            runs += more
        if runs > _RUNS_MOST:
            raise NotHere(f"{name} runs more than {_RUNS_MOST} models for a request")
        return ensemble_answer(config, members), runs

    def _alone(self, config: Any, name: str, version: int) -> Answer:
        folder = self.root / name / str(version)
        there = {each.name for each in folder.iterdir()} if folder.is_dir() else set()
        if backend_of(config) == "onnxruntime":
            file = config.default_model_filename or DEFAULT_ONNX
            if file not in there:
                raise PackagingError(f"{name} has no file {file!r} in its version {version}")
            return graph_answer(config, Runner(folder / file))
        if config.backend == "python" and name.endswith(TOKENISE_SUFFIX) and there >= TOKENISE_FILES:
            return tokenise_answer(config, (folder / tokenizer_file.FILE).read_bytes())
        raise NotHere(f"{name} ({config.backend or config.platform or 'of no backend'}) runs only in Triton")


def backend_of(config: Any) -> str:
    """As it is named, or by the platform, which older configurations name in its place."""
    return str(config.backend or _PLATFORMS.get(config.platform, ""))


def graph_answer(config: Any, runner: Runner) -> Answer:
    """A graph as Triton serves it with this configuration."""
    reshaped = {each.name for each in config.input if each.HasField("reshape")}
    single = {each.name for each in config.output if each.HasField("reshape")}

    def run(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        given = {name: _texts(array.reshape(-1) if name in reshaped else array) for name, array in inputs.items()}
        outputs = runner.run(given)
        return {name: array.reshape(-1, 1) if name in single else array for name, array in outputs.items()}

    return run


def tokenise_answer(config: Any, tokenizer_json: bytes) -> Answer:
    """A packaged tokenise step."""

    def run(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if TEXT not in inputs:
            raise PackagingError(f"{config.name!r} is not given its input {TEXT}")
        return tokenise(config, tokenizer_json, _raw(inputs[TEXT]))

    return run


def ensemble_answer(config: Any, members: Mapping[str, Answer]) -> Answer:
    """An ensemble: each step as soon as there is what it takes."""

    def run(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        known = dict(inputs)
        left = list(config.ensemble_scheduling.step)
        while left:
            ready = [step for step in left if all(tensor in known for tensor in step.input_map.values())]
            if not ready:
                waits = ", ".join(step.model_name for step in left)
                raise PackagingError(f"the ensemble {config.name!r} never runs {waits}: no step gives what it takes")
            for step in ready:
                answers = members[step.model_name]({own: known[tensor] for own, tensor in step.input_map.items()})
                known |= {tensor: answers[own] for own, tensor in step.output_map.items() if own in answers}
                left.remove(step)
        return {each.name: known[each.name] for each in config.output if each.name in known}

    return run


def latest(folder: Path, version: int) -> int:
    """The version `version` where the model has it, else its highest; raises PackagingError where it has none."""
    there = sorted(int(each.name) for each in folder.glob("[1-9]*") if each.name.isdecimal()) if folder.is_dir() else []
    if not there:
        raise PackagingError(f"the model {folder.name!r} has no version folder")
    return version if version in there else there[-1]


def _texts(array: Array) -> Array:
    """onnxruntime takes str, not bytes."""
    if array.dtype != object:
        return array
    texts = np.empty(array.size, dtype=object)
    for number, item in enumerate(array.flat):
        try:
            texts[number] = item.decode() if isinstance(item, bytes) else item
        except UnicodeDecodeError as error:
            raise PackagingError(f"a text is not UTF-8: {error}") from error
    return texts.reshape(array.shape)


def _raw(array: Array) -> Array:
    """Texts as bytes, as Triton hands them over."""
    texts = np.empty(array.size, dtype=object)
    for number, item in enumerate(array.flat):
        texts[number] = item.encode() if isinstance(item, str) else item
    return texts.reshape(array.shape)


def _tensors(entries: Any) -> dict[str, TensorSignature]:
    return {
        each.name: TensorSignature(name=each.name, datatype=datatype(each.data_type), shape=tuple(each.dims))
        for each in entries
    }


def is_datatype(number: int) -> bool:
    """Whether a configuration's data_type is one: the format takes any number."""
    return number in model_config_pb2.DataType.values()


def datatype(number: int) -> str:
    """Triton's name in requests of a configuration's data_type: BYTES for TYPE_STRING."""
    name = str(model_config_pb2.DataType.Name(number)).removeprefix("TYPE_")
    return BYTES if name == "STRING" else name
