"""`conch.json`: what a model was made from, with what, and what was measured.

The same inputs give the same record: no time, no path, no latency (those are printed), and not the digest of the folder
that it lies in.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from onnx import ModelProto

RECORD_FILE: Final = "conch.json"
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What is told of one packaged graph."""

    name: str
    version: int
    source: Mapping[str, Any]
    """Its kind, and the sha256 of the files that it is made of."""
    graph: ModelProto
    """As it is served."""
    files: Mapping[str, str]
    """sha256 of the files beside this one, by path in the model's folder."""
    parity: Mapping[str, Any] | None
    variants: Sequence[Mapping[str, Any]]
    kept: str
    batch_deviation: float | str | None
    """The most that a sample's output depends on its neighbours in a batch."""
    golden_samples: int
    tools: Mapping[str, str]
    more: Mapping[str, Any]


def record(made: Made) -> bytes:
    """The content of conch.json."""
    body = {
        "format": _FORMAT,
        "name": made.name,
        "version": made.version,
        "source": dict(made.source),
        "tools": dict(sorted(made.tools.items())),
        "graph": {
            "ir": made.graph.ir_version,
            "opsets": {each.domain or "ai.onnx": each.version for each in made.graph.opset_import},
        },
        "parity": made.parity,
        "variants": list(made.variants),
        "kept": made.kept,
        "batchDeviation": made.batch_deviation,
        "goldenSamples": made.golden_samples,
        **made.more,
        "files": dict(sorted(made.files.items())),
    }
    return (json.dumps(body, indent=2, allow_nan=False) + "\n").encode()


def finite(value: float | None) -> float | str | None:
    """A number as JSON can hold it: where one answer is a number and the other is none, they are infinitely apart."""
    return value if value is None or math.isfinite(value) else str(value)


def tool_versions(names: Sequence[str]) -> dict[str, str]:
    """The versions of what is installed of these distributions."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
