"""What a tokenizer changes about a request: texts become tensors, and the graph gets a step in front of it."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from onnx import ModelProto

from conch.packaging.errors import PackagingError
from conch.packaging.graph.session import Runner
from conch.packaging.request import DynamicAxis, HeldOut, Request
from conch.packaging.requirements import texts_of
from conch.packaging.tensors import Array, Tensors
from conch.packaging.text.ensemble import text_models
from conch.packaging.text.fit import check_runs, text_inputs
from conch.packaging.text.tokenizer import EVERY_INPUT, FILE, TENSORS, TextInputs, encode, read_tokenizer
from conch.packaging.text.triton_model import TEXT, tokenise_files

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

_LENGTH: Final = "seq"
_LEAST_LENGTH: Final = 2
_EXAMPLE_TEXTS: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """The tokenizer of a request."""

    tokenizer: "Tokenizer"
    max_length: int

    @classmethod
    def of(cls, request: Request) -> Self | None:
        """None for a model that takes tensors. Raises PackagingError."""
        if request.tokenizer is None:
            return None
        return cls(tokenizer=read_tokenizer(request.tokenizer), max_length=request.max_length)

    def for_module(self, request: Request, module: "torch.nn.Module") -> Request:
        """With an example of texts and its free length, for the module's forward; what is given stays."""
        if request.example is not None and texts_of(request.example) is None:
            example: Tensors = request.example
        else:
            taken = [name for name in inspect.signature(module.forward).parameters if name in TENSORS]
            if not taken:
                raise PackagingError(
                    f"forward of {type(module).__name__} takes none of {', '.join(TENSORS)}, which are what a "
                    "tokenizer gives; name its parameters so"
                )
            inputs = TextInputs(dtypes={name: EVERY_INPUT.dtypes[name] for name in taken})
            example = encode(self.tokenizer, _texts(request)[:_EXAMPLE_TEXTS], self.max_length, inputs)
        dynamic = request.dynamic or tuple(
            DynamicAxis(input=name, axis=1, name=_LENGTH, least=_LEAST_LENGTH, most=self.max_length) for name in example
        )
        return replace(request, example=example, dynamic=dynamic)

    def model(self, graph: ModelProto) -> "TextModel":
        """The graph as what the tokenizer is for. Raises PackagingError where they do not fit."""
        inputs = text_inputs(graph, self.tokenizer, self.max_length)
        return TextModel(tokenizer=self.tokenizer, max_length=self.max_length, inputs=inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextModel:
    """A graph that takes texts, by its tokenizer."""

    tokenizer: "Tokenizer"
    max_length: int
    inputs: TextInputs

    def check_runs(self, runner: Runner) -> None:
        """Raises PackagingError where the graph does not bear its tokenizer's ids and lengths."""
        check_runs(runner, self.tokenizer, self.max_length, self.inputs)

    def encoded(self, request: Request) -> Request:
        """The request with tensors in place of texts."""
        held_out = request.held_out
        return replace(
            request,
            golden=self._tensors(request.golden),
            example=self._tensors(request.example),
            calibration=self._tensors(request.calibration),
            held_out=None
            if held_out is None
            else HeldOut(inputs=self._tensors(held_out.inputs) or {}, target=held_out.target),
        )

    def golden_inputs(self, request: Request) -> dict[str, Array]:
        """The texts of the golden set, as clients send them."""
        texts = np.empty((len(_texts(request)), 1), dtype=object)
        texts[:, 0] = [text.encode() for text in _texts(request)]
        return {TEXT: texts}

    def parts(self, config: Any, version: int) -> tuple[dict[str, Any], dict[str, bytes | Path]]:
        """The configurations (ensemble, tokenise step, graph) and the files of the tokenise step."""
        return text_models(config.name, config), tokenise_files(
            self.tokenizer, self.max_length, self.inputs, version=version
        )

    def packaged_tokenizer(self, files: Mapping[str, bytes | Path], version: int) -> bytes:
        """The tokenizer among those files, as it will be read in Triton."""
        content = files[f"{version}/{FILE}"]
        return content if isinstance(content, bytes) else content.read_bytes()

    def _tensors(self, given: Tensors | None) -> Tensors | None:
        if given is None or (texts := texts_of(given)) is None:
            return given
        return encode(self.tokenizer, texts, self.max_length, self.inputs)


def _texts(request: Request) -> list[str]:
    """The first that there are; check_request has seen to it."""
    held_out = None if request.held_out is None else request.held_out.inputs
    for given in (request.golden, held_out, request.example):
        if given is not None and (found := texts_of(given)) is not None:
            return found
    raise PackagingError("a text model's golden set is made of texts; give them with --golden")
