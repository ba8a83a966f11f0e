"""How few and how many replicas a rule may ask for."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Of the number of replicas."""

    minimum: int = 1
    """0 lets rules that can do so scale to zero."""
    maximum: int = 100

    def clamp(self, replicas: int) -> int:
        """The nearest allowed number."""
        return max(self.minimum, min(self.maximum, replicas))
