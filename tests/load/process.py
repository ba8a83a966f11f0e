"""A load in a process of its own, so that a test's own work makes no request late."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.load.plan import Plan
from tests.load.result import Result
from tests.support.waiting import until

_ROOT: Final = Path(__file__).parents[2]
_NICENESS: Final = -10
_SPARE_SECONDS: Final = 60.0
"""For the process to start and to write its result."""


class Load:
    """A running load; ended with the block. Its files are in `folder`, which must not hold another load's."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._out, self._progress, self._errors = (
            folder / name for name in ("result.json", "progress.jsonl", "errors.txt")
        )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_text(plan.model_dump_json(indent=2))
        self._began = time.monotonic()
        self._phases: set[str] = set()
        command = [sys.executable, "-m", "tests.load", "--plan", str(folder / "plan.json"), "--out", str(self._out)]
        with self._progress.open("wb") as out, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [*command, "--commands"], cwd=_ROOT, stdin=subprocess.PIPE, stdout=out, stderr=errors
            )
        # It must be on time also while servers start on every core; not allowed, it is as any other process.
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, _NICENESS)

    def __enter__(self) -> Self:
        """Returns once requests go."""
        try:
            until(self._has_begun, "the load to begin")
            assert self._process.poll() in (None, 0), f"the load did not begin: {self._words()}"
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def progress(self) -> Mapping[str, Any]:
        """The newest account: at, scheduled, answered, failed, in_flight, recent (a Span); empty before the first."""
        lines = self._progress.read_text().rpartition("\n")[0].splitlines()
        told: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        return told

    def mark(self, phase: str) -> None:
        """From now on requests belong to this phase."""
        if phase in self._phases:
            raise ValueError(f"there is a phase {phase!r} already")
        self._phases.add(phase)
        self._tell(mark=phase, at=time.monotonic())

    def stop(self) -> Result:
        """Send nothing more; returns once everything that was sent is answered or given up."""
        self._tell(stop=True)
        return self.result()

    def result(self) -> Result:
        """Wait for the end."""
        bound = self._began + self._plan.duration_seconds + self._plan.timeout_seconds + _SPARE_SECONDS
        try:
            code = self._process.wait(timeout=max(0.0, bound - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            raise AssertionError(f"the load did not end: {self._words()}") from error
        assert code == 0, f"the load ended with {code}: {self._words()}"
        return Result.model_validate_json(self._out.read_text())

    def _end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()

    def _tell(self, **command: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            # It is through with its plan; result() tells if that is not why.
            return

    def _has_begun(self) -> bool:
        return self._process.poll() is not None or bool(self.progress())

    def _words(self) -> str:
        return self._errors.read_text()[-2000:]
