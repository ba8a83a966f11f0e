"""What the design measured with its six models (2026-11-22, the same kind of machine), to stand beside ours."""

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One optimisation; `speed` is the time of the fp32 graph over its own, alone and in batches of 32."""

    kilobytes: float
    score: float
    speed_of_one: float
    speed_of_batch: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One of the six, in fp32; the samples are of the same kinds, not the same models."""

    score: float
    export_seconds: float
    kilobytes: float
    deviation: float
    variants: dict[str, Variant] = field(default_factory=dict)


DEVIATION_GOAL: Final = 1e-5
DESIGN: Final = {
    "linear": Model(score=0.830, export_seconds=0.7, kilobytes=2.3, deviation=2.4e-7),
    "regression": Model(score=0.978, export_seconds=0.85, kilobytes=26.9, deviation=3.6e-7),
    "classifier": Model(score=0.969, export_seconds=0.8, kilobytes=1205, deviation=1.2e-7),
    "digits-cnn": Model(
        score=0.982,
        export_seconds=1.1,
        kilobytes=1689,
        deviation=2.4e-7,
        variants={
            "pruned": Variant(kilobytes=438, score=0.991, speed_of_one=116 / 43, speed_of_batch=2942 / 792),
        },
    ),
    "sequence": Model(score=0.960, export_seconds=2.6, kilobytes=238, deviation=6.0e-7),
    "text": Model(
        score=0.823,
        export_seconds=3.6,
        kilobytes=3791,
        deviation=2.4e-6,
        variants={
            "int8 (dynamic)": Variant(kilobytes=990, score=0.825, speed_of_one=220 / 156, speed_of_batch=28189 / 17256),
            "int8 (static)": Variant(kilobytes=2590, score=0.825, speed_of_one=1.0, speed_of_batch=1 / 0.69),
        },
    ),
}
