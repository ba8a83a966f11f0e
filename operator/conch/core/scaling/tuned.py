"""What tuning has come to: it holds until the next time."""

from dataclasses import dataclass

from conch.core.scaling.capacity import Capacity
from conch.core.scaling.late_surface import LateSurface
from conch.core.scaling.level import LevelPolicy
from conch.core.scaling.service_curve import ServiceCurve
from conch.core.scaling.settings import ScalingSettings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tuning:
    """One outcome of `tune`."""

    at: float
    settings: ScalingSettings
    curve: ServiceCurve | None
    """What it was calculated from; None where none is needed."""
    surface: LateSurface | None
    """Of this curve or one like it: simulating it takes long."""
    capacity: Capacity
    policy: LevelPolicy
