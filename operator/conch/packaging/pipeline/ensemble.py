"""A checked pipeline as the configuration of a Triton ensemble."""

from typing import Any

from tritonclient.grpc import model_config_pb2
from tritonclient.grpc.model_config_pb2 import ModelConfig as TritonConfig

from conch.packaging.pipeline.step_model import member_name
from conch.packaging.pipeline.steps import Pipeline, TensorType
from conch.packaging.pipeline.wiring import Wiring


def ensemble_config(pipeline: Pipeline, wiring: Wiring) -> Any:
    """The ensemble's config.pbtxt: its tensors are the pipeline's values, by their names."""
    config = TritonConfig(name=pipeline.name, platform="ensemble", max_batch_size=pipeline.max_batch_size)
    for value in pipeline.inputs:
        _describe(config.input.add(), value, wiring.types[value])
    for value in pipeline.outputs:
        _describe(config.output.add(), value, wiring.types[value])
    for step in pipeline.steps:
        entry = config.ensemble_scheduling.step.add(model_name=member_name(pipeline.name, step.name), model_version=-1)
        entry.input_map.update(step.inputs)
        entry.output_map.update({tensor: value for tensor, value in step.outputs.items() if value is not None})
    return config


def _describe(entry: Any, name: str, kind: TensorType) -> None:
    entry.name = name
    entry.data_type = model_config_pb2.DataType.Value(f"TYPE_{'STRING' if kind.datatype == 'BYTES' else kind.datatype}")
    entry.dims[:] = kind.dims
