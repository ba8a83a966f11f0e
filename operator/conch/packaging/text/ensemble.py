"""The three configurations of a text service: the ensemble that clients call, the tokenise step, the graph."""

from typing import Any, Final

from tritonclient.grpc import model_config_pb2
from tritonclient.grpc.model_config_pb2 import ModelConfig as TritonConfig
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

from conch.packaging.errors import PackagingError
from conch.packaging.text.tokenizer import TENSORS
from conch.packaging.text.triton_model import TEXT

TOKENISE_SUFFIX: Final = "_tokenize"
MODEL_SUFFIX: Final = "_model"


def text_models(name: str, model: Any) -> dict[str, Any]:
    """By model name: the tokenise step, the graph (whose configuration is `model`), and last the ensemble `name`.

    In this order they are written: what clients call comes after what it needs. The ensemble's input is TEXT; its
    outputs are the graph's, by their names. Raises PackagingError.
    """
    if model.max_batch_size < 1:
        raise PackagingError(
            "a text model takes batches: axis 0 of every input and output of the graph has to be symbolic, and "
            "--max-batch at least 1"
        )
    if clash := [each.name for each in model.output if each.name in (TEXT, *TENSORS)]:
        raise PackagingError(
            f"the graph's output {clash[0]} has the name of a tensor of the tokenise step; give it another name"
        )
    graph = TritonConfig()
    graph.CopyFrom(model)
    graph.name = name + MODEL_SUFFIX
    tokenise = tokenise_config(name + TOKENISE_SUFFIX, graph)
    return {tokenise.name: tokenise, graph.name: graph, name: _ensemble(name, tokenise, graph)}


def tokenise_config(name: str, model: Any) -> Any:
    """The tokenise step: its outputs are the inputs of the graph's configuration."""
    config = TritonConfig(name=name, backend="python", max_batch_size=model.max_batch_size)
    config.input.add(name=TEXT, data_type=model_config_pb2.TYPE_STRING, dims=[1])
    for each in model.input:
        config.output.add(name=each.name, data_type=each.data_type, dims=each.dims)
    # Requests that wait are handed over together; each keeps its own length.
    if config.max_batch_size > 1:
        config.dynamic_batching.SetInParent()
    # Triton would otherwise start one on every GPU.
    config.instance_group.add(count=1, kind=ModelInstanceGroup.KIND_CPU)
    return config


def _ensemble(name: str, tokenise: Any, graph: Any) -> Any:
    config = TritonConfig(name=name, platform="ensemble", max_batch_size=graph.max_batch_size)
    config.input.add(name=TEXT, data_type=model_config_pb2.TYPE_STRING, dims=[1])
    for each in graph.output:
        config.output.add(name=each.name, data_type=each.data_type, dims=each.dims)
    for member, inputs in ((tokenise, [TEXT]), (graph, [each.name for each in graph.input])):
        step = config.ensemble_scheduling.step.add(model_name=member.name, model_version=-1)
        step.input_map.update({each: each for each in inputs})
        step.output_map.update({each.name: each.name for each in member.output})
    return config
