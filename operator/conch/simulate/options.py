"""What a person asks of a replay, in the words of the command line."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from conch.client.errors import ClientError
from conch.core.scaling.service_curve import ServiceCurve

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)")
_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_CURVE_PARTS: Final = (3, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """As they were given; None is what was not."""

    trace: Path
    column: str | None = None
    objective: str | None = None
    percentile: float | None = None
    minimum: int | None = None
    maximum: int | None = None
    start: int | None = None
    idle: str | None = None
    cold_start: str | None = None
    curve: str | None = None
    name: str | None = None
    """The object to take from what is not given."""
    namespace: str | None = None
    context: str | None = None
    gpu_hour_cost: float | None = None
    gpus: int | None = None
    compare: bool = True
    output: Path | None = None
    as_json: bool = False


def duration_seconds(option: str, text: str) -> float:
    """Such as 200ms, 45s, 1.5m or 2h, in seconds. Raises ClientError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or (seconds := float(match[1]) * _UNIT_SECONDS[match[2]]) <= 0:
        raise ClientError(f"{option} {text}: give a time with its unit, such as 200ms, 45s, 2m or 1h")
    return seconds


def service_curve(text: str) -> ServiceCurve:
    """A,B,MAX_BATCH[,INSTANCES]: a batch of n takes A + B n milliseconds. Raises ClientError."""
    parts = text.split(",")
    try:
        if len(parts) not in _CURVE_PARTS:
            raise ValueError
        base, per_item = (float(part) / 1000 for part in parts[:2])
        max_batch, instances = int(parts[2]), int(parts[3]) if len(parts) > 3 else 1
    except ValueError:
        base = per_item = max_batch = instances = 0
    if not (base >= 0 and per_item >= 0 and 0 < base + per_item < float("inf") and max_batch >= 1 and instances >= 1):
        raise ClientError(
            f"--curve {text}: give A,B,MAX_BATCH[,INSTANCES], where a batch of n takes A + B x n milliseconds, such as "
            "5,2.5,8 (perf_analyzer or conch why NAME tells them)"
        )
    return ServiceCurve(base_seconds=base, per_item_seconds=per_item, max_batch=max_batch, instances=instances)
