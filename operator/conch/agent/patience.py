"""Work on a model's files, which may lie on a network file system whose server is away."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from conch.agent.errors import StepError
from conch.agent.fetcher import shown_sources
from conch.agent.wanted import Wanted
from conch.api.reasons import Reason
from conch.store.bounded import NotAnsweredError, answered
from conch.store.threads import Checkpoint

PATIENCE_SECONDS: Final = 300.0
"""Much longer than it takes to read configurations and the beginnings of models, wherever they lie."""
_Result = TypeVar("_Result")


class Patience:
    """Waits for one piece of work at a time, and not for ever."""

    def __init__(self, seconds: float = PATIENCE_SECONDS) -> None:
        self._seconds = seconds
        self._left_behind: Future[Any] | None = None

    async def wait_for(self, wanted: Wanted, work: Callable[[Checkpoint], _Result]) -> _Result:
        """Run `work(checkpoint)`; raises StepError where the files do not answer, also while earlier work waits."""
        if self._left_behind is not None and not self._left_behind.done():
            raise self._silence(wanted)
        try:
            return await answered(work, patience_seconds=self._seconds)
        except NotAnsweredError as error:
            self._left_behind = error.left_behind
            raise self._silence(wanted) from error

    def _silence(self, wanted: Wanted) -> StepError:
        return StepError(
            Reason.SOURCE_UNREACHABLE,
            f"{shown_sources(wanted)}: the file system that holds the model's files has not answered for "
            f"{self._seconds:.0f} s. Look whether the server of the volume is there; the files are tried again",
        )
