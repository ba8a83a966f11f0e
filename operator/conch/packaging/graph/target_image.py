"""Whether the onnxruntime in NVIDIA's Triton image of a release loads a graph: it refuses a newer opset or IR version.

Versions of onnxruntime: build.py of the server's repository at the release's tag. What each of them takes was tried
with its wheel, by raising the numbers until it refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from onnx import ModelProto

from conch.packaging.errors import PackagingError


@dataclass(frozen=True, slots=True)
class _Takes:
    onnxruntime: str
    opset: int
    ml_opset: int
    ir: int


_RELEASES: Final = {
    "24.10": _Takes("1.19.2", opset=21, ml_opset=5, ir=10),
    "25.06": _Takes("1.22.0", opset=22, ml_opset=5, ir=10),
    "25.12": _Takes("1.23.2", opset=23, ml_opset=5, ir=11),
    "26.03": _Takes("1.24.2", opset=25, ml_opset=5, ir=13),
    "26.06": _Takes("1.24.4", opset=25, ml_opset=5, ir=13),
}
_ML: Final = "ai.onnx.ml"


def check_target(graph: ModelProto, release: str) -> None:
    """Raises PackagingError where the image of a release, such as 25.06, is not known or too old for the graph."""
    if release not in _RELEASES:
        raise PackagingError(
            f"what the image {release!r} can load is not known; known are {', '.join(_RELEASES)}: take the newest of "
            "them that is not newer than yours"
        )
    takes = _RELEASES[release]
    reasons = list(_too_new(graph, takes))
    if reasons:
        raise PackagingError(
            f"Triton {release} (onnxruntime {takes.onnxruntime}) cannot load the graph: {'; '.join(reasons)}. Export "
            "the model with an older opset (torch: opset_version=20; else onnx.version_converter.convert_version), or "
            "serve it with a newer image"
        )


def _too_new(graph: ModelProto, takes: _Takes) -> Iterator[str]:
    imports = [*graph.opset_import, *(entry for function in graph.functions for entry in function.opset_import)]
    opset = max((entry.version for entry in imports if entry.domain in {"", "ai.onnx"}), default=0)
    ml_opset = max((entry.version for entry in imports if entry.domain == _ML), default=0)
    if opset > takes.opset:
        yield f"it has opset {opset}, the image takes up to {takes.opset}"
    if ml_opset > takes.ml_opset:
        yield f"it has opset {ml_opset} of {_ML}, the image takes up to {takes.ml_opset}"
    if graph.ir_version > takes.ir:
        yield f"it has IR version {graph.ir_version}, the image takes up to {takes.ir}"
