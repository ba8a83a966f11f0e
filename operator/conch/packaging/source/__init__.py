"""Where a graph comes from: an ONNX file, or a torch module that is exported. Only the latter needs torch."""

from collections.abc import Iterator
from contextlib import contextmanager

from conch.packaging.errors import PackagingError


@contextmanager
def torch_extra() -> Iterator[None]:
    """Around the imports of torch and its like: without them there is one message that says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise PackagingError(
            f"{error.name} is not installed, and a torch module needs it: pip install 'conch[torch]' (2.8 GB; a model "
            "that is exported to .onnx already needs only 'conch[package]')"
        ) from error
    except (ImportError, OSError) as error:
        raise PackagingError(
            f"torch is installed but does not load ({_first_line(error)}); install it again with the packages that it "
            "depends on: pip install --force-reinstall torch"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
