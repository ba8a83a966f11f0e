"""Gives the loaded model as many instances as are assigned, while it serves; what it cannot have is said.

Triton tells itself how many there are, and whose number that is (triton/instances.py): so nothing is remembered but a
refusal.
"""

import random
from collections.abc import Callable
from typing import Any, Final

from conch.agent.fetcher import Fetcher
from conch.agent.reporting import agent_log
from conch.agent.state import Resizing
from conch.agent.volume import Volume
from conch.agent.wanted import Wanted
from conch.api.types import bounded
from conch.store import in_thread
from conch.triton.client import TritonClient
from conch.triton.config_pbtxt import is_ensemble, loaded_layout, parse_config
from conch.triton.errors import InvalidModelError, TritonRefusedError, TritonUnavailableError
from conch.triton.instances import config_json, instance_groups
from conch.triton.layout import CONFIG

RETRY_FIRST_SECONDS: Final = 1.0
RETRY_MOST_SECONDS: Final = 30.0
_MESSAGE_MOST: Final = 1024


class Resizer:
    """Of one volume and one Triton."""

    def __init__(
        self,
        volume: Volume,
        fetcher: Fetcher,
        triton: TritonClient,
        clock: Callable[[], float],
        *,
        timeout_seconds: float,
    ) -> None:
        self._volume = volume
        self._fetcher = fetcher
        self._triton = triton
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._log = agent_log()
        self.known = Resizing()

    def forget(self) -> None:
        """Another number is assigned, or a load begins."""
        self.known = Resizing()

    async def load(self, wanted: Wanted) -> None:
        """Load what is laid out with the assigned number of instances, or with its own where Triton refuses that.

        A pod that serves with fewer instances is better than none. Raises TritonRefusedError when the model cannot be
        loaded as it is either, TritonUnavailableError.
        """
        self.forget()
        name, instances = wanted.name, wanted.assignment.instances
        config = await in_thread(lambda _checkpoint: self._laid_out(wanted)) if instances is not None else None
        if config is None or is_ensemble(config):
            await self._triton.load(name, timeout_seconds=self._timeout_seconds)
            return
        try:
            await self._load(wanted, config, instances)
        except TritonRefusedError as error:
            await self._load(wanted, config, None)
            self._refuse(
                f"Triton does not load {name!r} with {_counted(instances)}, so it serves as configured: {error}"
            )

    async def run(self, wanted: Wanted) -> None:
        """Change the number of instances of the model that serves; never raises. What comes of it is in `known`."""
        started = self._clock()
        instances = wanted.assignment.instances
        try:
            refused = await self._change(wanted, instances)
        except TritonUnavailableError as error:
            self._try_again(str(error))
            return
        except (InvalidModelError, OSError) as error:
            refused = f"the configuration of {wanted.name!r} cannot be read from the model volume: {error}"
        except Exception as error:
            # A step that raises is tried again at once, for ever.
            self._log.exception("resize_crashed")
            refused = f"the agent failed in an unexpected way: {error!r}"
        if refused:
            self._refuse(refused)
        else:
            self.forget()
            self._log.info("resized", instances=instances, seconds=round(self._clock() - started, 3))

    async def _change(self, wanted: Wanted, instances: int | None) -> str:
        """Why Triton keeps the instances that it has; empty when it does not."""
        name, version = wanted.name, wanted.assignment.version
        config = await in_thread(lambda _checkpoint: self._laid_out(wanted))
        if config is None:
            return (
                f"the files of {name!r} on the model volume are not those that are loaded, and Triton would load them; "
                "the number of instances changes with the next load"
            )
        if is_ensemble(config):
            return f"{name!r} is an ensemble, which has no instances of its own; remove spec.runtime.instances"
        record = self._volume.record(wanted.fetch_key)
        if record is None or not await in_thread(lambda _checkpoint: self._fetcher.is_unchanged(wanted, record)):
            # Each new instance reads the files again.
            return (
                f"the files of {name!r} on the claim were written to after they were verified; the number of instances "
                "changes with the next load"
            )
        try:
            await self._load(wanted, config, instances)
        except TritonRefusedError as error:
            running = instance_groups(await self._triton.config(name, version))
            now = max(running.counts, default=0) if running else 0
            return f"Triton does not run {name!r} with {_counted(instances)} and serves on with {now}: {error}"
        running = instance_groups(await self._triton.config(name, version))
        if running is None or not running.are(instances):
            runs = "none" if running is None else ", ".join(map(str, running.counts))
            return f"Triton took {_counted(instances)} for {name!r}, but runs {runs}"
        return ""

    async def _load(self, wanted: Wanted, config: Any, instances: int | None) -> None:
        await self._triton.load(
            wanted.name,
            timeout_seconds=self._timeout_seconds,
            config=config_json(config, instances=instances),
        )

    def _laid_out(self, wanted: Wanted) -> Any:
        """The laid out configuration; None where another model, or another layout of this one, has taken its place."""
        path = self._volume.repository / wanted.name / CONFIG
        try:
            config = parse_config(path.read_text())
        except FileNotFoundError:
            return None
        return config if loaded_layout(config) == wanted.layout_key else None

    def _refuse(self, message: str) -> None:
        self.known = Resizing(refused=bounded(message, _MESSAGE_MOST), due_at=None)
        self._log.warning("resize_refused", message=self.known.refused)

    def _try_again(self, message: str) -> None:
        attempts = self.known.attempts + 1
        pause = min(RETRY_MOST_SECONDS, RETRY_FIRST_SECONDS * 2 ** min(attempts - 1, 8))
        pause *= random.uniform(0.75, 1.0)  # noqa: S311 - jitter
        self.known = Resizing(attempts=attempts, due_at=self._clock() + pause)
        self._log.warning("resize_unanswered", attempts=attempts, message=message[:_MESSAGE_MOST])


def _counted(instances: int | None) -> str:
    if instances is None:
        return "the instances that its configuration says"
    return "1 instance" if instances == 1 else f"{instances} instances"
