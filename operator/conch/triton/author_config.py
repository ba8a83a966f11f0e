"""The configuration that a found model comes with: its config.pbtxt, or what its files tell without one."""

from pathlib import Path
from typing import Any, Final

from tritonclient.grpc.model_config_pb2 import ModelConfig as TritonConfig

from conch.api.model import ModelConfig
from conch.triton.bare_file import BareFile
from conch.triton.config_pbtxt import parse_config
from conch.triton.layout import CONFIG, DEFAULT_ONNX, Found
from conch.triton.onnx_config import onnx_config
from conch.triton.onnx_signature import read_signature
from conch.triton.plain_file import read_small_text

CONFIG_BYTES_MOST: Final = 4 << 20
_NO_WISHES: Final = ModelConfig()


def author_config(found: Found, fetched: Path, version: int, wishes: ModelConfig = _NO_WISHES) -> Any:
    """The author's configuration, one derived from the model's file, or an empty one that Triton completes.

    `wishes` are the object's, for what is derived: it must not contradict them. Raises InvalidModelError.
    """
    root = fetched / found.root
    if found.has_config:
        return parse_config(read_small_text(root / CONFIG, most=CONFIG_BYTES_MOST, name=CONFIG))
    if found.bare is not None:
        return _of_bare_file(found.bare, root, wishes)
    graph = f"{version}/{DEFAULT_ONNX}"
    if graph not in found.tree.files:
        return parse_config("")
    return _of_graph(root / graph, wishes)


def _of_bare_file(bare: BareFile, root: Path, wishes: ModelConfig) -> Any:
    """Only a graph tells what it takes; a plan tells it to Triton, and a program may."""
    if bare.kind.backend == "onnxruntime":
        return _of_graph(root / bare.name, wishes)
    config = TritonConfig(backend=bare.kind.backend, default_model_filename=bare.name)
    if (wishes.max_batch_size or 0) > 1 and wishes.sequence_batching is None:
        config.dynamic_batching.SetInParent()
    return config


def _of_graph(file: Path, wishes: ModelConfig) -> Any:
    config = onnx_config(read_signature(file), filename=file.name, max_batch_size=wishes.max_batch_size)
    if wishes.sequence_batching is not None:
        config.ClearField("dynamic_batching")
    return config
