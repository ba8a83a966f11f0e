"""`conch` with the duration of each stage: `python -m tests.perf.packaging.stopwatch FILE ARGUMENTS OF CONCH`.

Adds to FILE a line of JSON for each run: {"seconds": whole, "stages": {words: seconds}}.
"""

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from unittest import mock


class Stopwatch:
    """A conch.packaging.progress.Progress, in place of the terminal's."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stage, self._began = "", 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stage("")

    def stage(self, words: str) -> None:
        """The one before is over."""
        now = time.monotonic()
        if self._stage:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._began
        self._stage, self._began = words, now

    def advance(self, done: int, total: int) -> None:
        """The stages are enough."""


def main() -> None:
    """Run the command, then write down what it took."""
    began = time.monotonic()
    out = Path(sys.argv.pop(1))
    from conch import cli
    from conch.packaging import run

    watch = Stopwatch()
    with mock.patch.object(run, "Terminal", return_value=watch):
        try:
            cli.main()
        finally:
            with out.open("a") as lines:
                print(json.dumps({"seconds": time.monotonic() - began, "stages": watch.seconds}), file=lines)


if __name__ == "__main__":
    main()
