"""Starts the parts as daemons that outlive the command, and ends exactly those again: by pid, never by name."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A started process. A pid alone may be another process by now; with its start time and boot it cannot."""

    name: str
    pid: int
    started: int
    """Field 22 of /proc/PID/stat, in clock ticks since boot."""
    boot: str
    argv: tuple[str, ...]

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return self.boot == boot_id() and start_time(self.pid) == self.started


class Processes:
    """The daemons recorded in one folder."""

    def __init__(self, *, records: Path, logs: Path) -> None:
        self._records = records
        self.logs = logs

    def start(
        self, name: str, argv: Sequence[str], *, environment: Mapping[str, str] | None = None, scheduling: int = 0
    ) -> Record:
        """Starts `argv` in a session of its own, its output going to `<logs>/<name>.log`."""
        self._records.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        with (self.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                env={**os.environ, **(environment or {})},
            )
        if scheduling:
            os.setpriority(os.PRIO_PROCESS, process.pid, scheduling)
        record = Record(
            name=name, pid=process.pid, started=start_time(process.pid) or 0, boot=boot_id(), argv=tuple(argv)
        )
        # Popen warns (and tests fail on it) when it is collected while its process runs; a daemon is meant to run on.
        process.returncode = 0
        temporary = self._records / f".{name}.new"
        temporary.write_text(json.dumps(asdict(record)))
        temporary.replace(self._records / f"{name}.json")
        return record

    def all(self) -> list[Record]:
        """Every recorded process, dead ones too, in the order they were started."""
        records = []
        for path in self._records.glob("[!.]*.json"):
            data = json.loads(path.read_text())
            records.append(Record(**{**data, "argv": tuple(data["argv"])}))
        return sorted(records, key=lambda record: (record.started, record.pid))

    def get(self, name: str) -> Record | None:
        """The process recorded under this name."""
        return next((record for record in self.all() if record.name == name), None)

    def stop(self, *names: str, grace_seconds: float = 5.0) -> None:
        """SIGTERM to all named at once (to all without a name), SIGKILL to what is left after the grace."""
        records = [record for record in self.all() if not names or record.name in names]
        end([record.pid for record in records if record.alive], grace_seconds=grace_seconds)
        for record in records:
            (self._records / f"{record.name}.json").unlink(missing_ok=True)

    def require_alive(self, name: str) -> None:
        """Raises with the end of its log when the process has ended by itself."""
        record = self.get(name)
        if record is None or not record.alive:
            raise ClusterError(
                f"{name} ended by itself. The end of its log:\n{tail(self.logs / f'{name}.log')}",
                todo=f"Read {self.logs / f'{name}.log'}, then run `down` and `up`.",
            )


def end(pids: Sequence[int], *, grace_seconds: float) -> None:
    """Ends processes that the caller knows to be its own, and waits until they are gone."""
    handles: dict[int, int] = {}
    try:
        for pid in pids:
            try:
                handles[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
        for sent, wait_seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 10.0)):
            if wait_seconds <= 0:
                continue
            for handle in handles.values():
                _send(handle, sent)
            deadline = time.monotonic() + wait_seconds
            for pid, handle in list(handles.items()):
                if _wait(handle, deadline - time.monotonic()):
                    os.close(handles.pop(pid))
            if not handles:
                return
    finally:
        for handle in handles.values():
            os.close(handle)


def start_time(pid: int) -> int | None:
    """When the process started, in ticks since boot; None when there is none or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def boot_id() -> str:
    """Changes with every boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def tail(path: Path, lines: int = 8) -> str:
    """The last lines of a log, indented."""
    try:
        return "\n".join(f"    {line}" for line in path.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "    (no log)"


def _send(handle: int, sent: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(handle, sent)
    except ProcessLookupError:
        return


def _wait(handle: int, seconds: float) -> bool:
    """A pidfd becomes readable when its process ends."""
    return bool(select.select([handle], [], [], max(seconds, 0))[0])
