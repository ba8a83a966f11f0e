"""An ONNX file from disk, whole: checked, and with the weights that lie beside it."""

from pathlib import Path
from typing import Final

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, external_data_helper

from conch.packaging.errors import PackagingError
from conch.packaging.graph.messages import messages

_LFS_POINTER: Final = b"version https://git-lfs"


def read_onnx(path: Path) -> ModelProto:
    """The model with its external data inside. Raises PackagingError where the file is missing, damaged or too new."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PackagingError(f"{path} cannot be read: {error.strerror}") from error
    if content.startswith(_LFS_POINTER):
        raise PackagingError(f"{path} is a pointer of Git LFS and not the model; run git lfs pull")
    try:
        model = ModelProto.FromString(content)
    except DecodeError as error:
        raise PackagingError(
            f"{path} is damaged or no ONNX file (its {len(content)} bytes do not parse); export or copy it again"
        ) from error
    if not model.HasField("graph") or not model.opset_import:
        raise PackagingError(
            f"{path} is damaged or no ONNX file (there is no graph in its {len(content)} bytes); export or copy it "
            "again"
        )
    _check_versions(path, model)
    _load_external_data(path, model)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise PackagingError(f"{path} is no valid ONNX model: {_first_line(error)}; export it again") from error
    return model


def _check_versions(path: Path, model: ModelProto) -> None:
    newest = onnx.defs.onnx_opset_version()
    for entry in model.opset_import:
        if entry.domain in {"", "ai.onnx"} and entry.version > newest:
            raise PackagingError(
                f"{path} has opset {entry.version}, onnx {onnx.__version__} knows up to {newest}; upgrade it (pip "
                "install -U onnx onnxruntime), or export the model with an older opset (torch: opset_version=20)"
            )
    if model.ir_version > onnx.IR_VERSION:
        raise PackagingError(
            f"{path} has IR version {model.ir_version}, onnx {onnx.__version__} knows up to {onnx.IR_VERSION}; upgrade "
            "it (pip install -U onnx onnxruntime), or export the model with an older onnx"
        )


def _load_external_data(path: Path, model: ModelProto) -> None:
    """Read the weights that lie in other files; their names are relative to the model's folder."""
    for tensor in messages(model):
        if not isinstance(tensor, TensorProto) or tensor.data_location != TensorProto.EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        try:
            external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise PackagingError(
                f"the weights {tensor.name!r} of {path} lie in {location!r} beside it, which cannot be read "
                f"({_first_line(error)}); copy that file there whole and under that name, or save the model in one "
                "file (torch: external_data=False)"
            ) from error
        tensor.ClearField("data_location")
        del tensor.external_data[:]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
