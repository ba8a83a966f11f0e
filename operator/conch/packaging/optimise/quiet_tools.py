"""onnxruntime's tools for graphs, kept from writing to the terminal and from changing the process."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from conch.packaging.errors import PackagingError

_PACKAGE: Final = "onnxruntime"
_FATAL_ONLY: Final = 4
_WARNING: Final = 2
"""What onnxruntime starts with; it has no function that tells what is set."""


@contextmanager
def quiet_tools() -> Iterator[None]:
    """Inside, onnxruntime's tools may be imported and called; afterwards logging and sys.path are as they were.

    They warn through the root logger, which gives it a handler on stderr for good, and its `transformers` package
    appends its folder to sys.path, where a user's `import models` would find it. Records of others pass.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise PackagingError(f"optimising a graph needs onnxruntime ({error}); pip install 'conch[package]'") from error
    onnxruntime.disable_telemetry_events()
    root, named = logging.getLogger(), logging.getLogger(_PACKAGE)
    # logging.warning() adds a handler to a root logger that has none.
    handler, level, search_path = logging.NullHandler(), named.level, list(sys.path)
    root.addFilter(_of_others)
    root.addHandler(handler)
    named.setLevel(logging.CRITICAL + 1)
    onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)
        named.setLevel(level)
        root.removeHandler(handler)
        root.removeFilter(_of_others)
        sys.path[:] = search_path


def _of_others(record: logging.LogRecord) -> bool:
    return _PACKAGE not in Path(record.pathname).parts
