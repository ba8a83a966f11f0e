"""Keeps Python's full garbage collections short: what survived one is not looked at again by the next.

The interpreter stops for as long as a full collection looks at every object, and a view of a thousand ModelDeployments
is a million of them: 200 ms, every few seconds under load. Nearly all live for ever or are freed without the collector
(they are in no cycle).
"""

import gc
from collections.abc import Callable, Mapping
from time import monotonic

_FULL = 2
_LOOK_AT_ALL_SECONDS = 600.0


class ShortCollections:
    """A `gc.callbacks` hook. Now and then everything is looked at, for what was set aside alive may have died since."""

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._look_at_all_at = clock() + _LOOK_AT_ALL_SECONDS

    def install(self) -> None:
        """Set aside what is there, and from now on what each full collection leaves."""
        gc.freeze()
        gc.callbacks.append(self)

    def __call__(self, phase: str, info: Mapping[str, int]) -> None:
        """Called by the interpreter before and after each collection."""
        if info["generation"] != _FULL:
            return
        if phase == "stop":
            gc.freeze()
        elif self._clock() >= self._look_at_all_at:
            self._look_at_all_at = self._clock() + _LOOK_AT_ALL_SECONDS
            gc.unfreeze()
