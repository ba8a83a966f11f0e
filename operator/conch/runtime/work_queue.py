"""A queue of keys: each key at most once, never worked on by two workers, with delays and back-off.

The same contract as client-go's: a key that is added while it is being worked on is worked on again afterwards. What a
person asked for goes before what the cluster reports: a thousand pods that come up must not hold an edit up.
"""

import asyncio
import random
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key")

_BACKOFF_FIRST_SECONDS = 0.2
_BACKOFF_LIMIT_SECONDS = 60.0
_URGENT_IN_A_ROW = 15
"""After so many urgent keys comes one of the others, so that no flood of edits can keep a status from being true."""


@dataclass(frozen=True, slots=True, eq=False)
class _Place(Generic[Key]):
    """One key's place in a lane."""

    key: Key
    urgent: bool


class WorkQueue(Generic[Key]):
    """Keys to work on, the urgent ones first, else in the order in which they became due."""

    def __init__(self) -> None:
        self._urgent: deque[_Place[Key]] = deque()
        self._due: deque[_Place[Key]] = deque()
        self._waiting: dict[Key, _Place[Key]] = {}
        """The place of each key; one that is in a lane but not here was given up for a better one."""
        self._urgent_in_a_row = 0
        self._active: set[Key] = set()
        self._dirty: dict[Key, bool] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._available = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: Key, *, urgent: bool = False) -> None:
        """Work on this key as soon as possible."""
        self._cancel_timer(key)
        if key in self._active:
            self._dirty[key] = urgent or self._dirty.get(key, False)
        elif (place := self._waiting.get(key)) is None or (urgent and not place.urgent):
            self._waiting[key] = place = _Place(key, urgent)
            (self._urgent if urgent else self._due).append(place)
            self._available.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Work on this key after a while, or sooner when it is added meanwhile; the nearest time counts."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if key in self._waiting or (timer is not None and timer.when() <= loop.time() + seconds):
            return
        self._cancel_timer(key)
        self._timers[key] = loop.call_later(seconds, self._timer_fired, key)

    def add_after_failure(self, key: Key) -> float:
        """Work on this key after a back-off that grows with its failures; returns the seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        limit = min(_BACKOFF_LIMIT_SECONDS, _BACKOFF_FIRST_SECONDS * 2.0 ** min(failures, 16))
        seconds = random.uniform(0.5, 1.0) * limit  # noqa: S311 - jitter
        self.add_after(key, seconds)
        return seconds

    def forget_failures(self, key: Key) -> None:
        """The key was worked on without a fault."""
        self._failures.pop(key, None)

    async def take(self) -> Key:
        """The next key; it is this worker's until `done`."""
        while not self._waiting:
            for lane in (self._urgent, self._due):
                lane.clear()
            self._available.clear()
            await self._available.wait()
        key = self._next()
        del self._waiting[key]
        self._active.add(key)
        return key

    def done(self, key: Key) -> None:
        """Give the key back; adds it again if it was added meanwhile."""
        self._active.discard(key)
        if (urgent := self._dirty.pop(key, None)) is not None:
            self.add(key, urgent=urgent)

    def _next(self) -> Key:
        """The key whose turn it is; there is one."""
        turns = (self._urgent, self._due) if self._urgent_in_a_row < _URGENT_IN_A_ROW else (self._due, self._urgent)
        for lane in turns:
            while lane:
                place = lane.popleft()
                if self._waiting.get(place.key) is place:
                    self._urgent_in_a_row = self._urgent_in_a_row + 1 if place.urgent else 0
                    return place.key
        raise AssertionError("a waiting key is in no lane")

    def _timer_fired(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _cancel_timer(self, key: Key) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()
