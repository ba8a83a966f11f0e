"""From a trained model to a folder that Triton serves: exported, checked, optimised, with its own proof.

    from conch.packaging import Request, package, check

    made = package(Request(source="model.onnx", out=Path("models"), name="net", example={"x": x}))
    assert not check(made.path), made.digest

What is behind a name is imported when it is asked for: onnx, onnxruntime and numpy take their time, and every command
of `conch` begins with this package.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from conch.packaging.checking.check import check
    from conch.packaging.checking.finding import Finding
    from conch.packaging.errors import PackagingError
    from conch.packaging.packaging import Package, package
    from conch.packaging.progress import Progress
    from conch.packaging.request import DynamicAxis, Head, HeldOut, Optimise, Request

__all__ = [
    "DynamicAxis",
    "Finding",
    "Head",
    "HeldOut",
    "Optimise",
    "Package",
    "PackagingError",
    "Progress",
    "Request",
    "check",
    "package",
]

_MODULES: Final = {
    "checking.check": ("check",),
    "checking.finding": ("Finding",),
    "errors": ("PackagingError",),
    "packaging": ("Package", "package"),
    "progress": ("Progress",),
    "request": ("DynamicAxis", "Head", "HeldOut", "Optimise", "Request"),
}


def __getattr__(name: str) -> Any:
    for module, exported in _MODULES.items():
        if name in exported:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
