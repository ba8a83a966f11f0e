"""One child process that serves HTTP and logs its requests; it ends with this process at the latest."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from tests.cluster import waiting

_START_SECONDS = 60
_STOP_SECONDS = 20
_REQUEST = re.compile(r"\b(GET|HEAD|PUT|POST|PATCH|DELETE)(?: \| | )(/[^\s?|]*)")
"""`| GET | /path |` of versitygw, `"GET /path HTTP/1.1"` of the others."""


class Process:
    """A server; it may be started again after its end, at the same port."""

    def __init__(self, log: Path, *, address: str, port: int) -> None:
        self.log = log
        self._where = (address, port)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, command: list[str], environment: Mapping[str, str]) -> None:
        """Returns when it listens."""
        assert self._process is None, "it runs already"
        # setpriv becomes the program itself; the kernel kills it when the thread that started it ends.
        bound = ["setpriv", "--pdeathsig", "KILL", "--", *command]
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                bound,
                cwd=self.log.parent,
                env={"PATH": os.environ["PATH"], **environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        waiting.until(
            self._listens,
            what=f"The start of {Path(command[0]).name}",
            timeout_seconds=_START_SECONDS,
            todo=f"Read {self.log}.",
            alive=self._must_live,
            every_seconds=0.02,
        )

    def stop(self) -> None:
        """Returns when it has ended."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def requests(self) -> Counter[str]:
        """By method and path, from the log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return Counter(f"{method} {unquote(path)}" for method, path in _REQUEST.findall(text))

    def _listens(self) -> bool:
        try:
            with socket.create_connection(self._where, timeout=2):
                return True
        except OSError:
            return False

    def _must_live(self) -> None:
        assert self._process is not None
        if (code := self._process.poll()) is not None:
            raise AssertionError(f"it ended with {code}:\n{self.log.read_text(errors='replace')[-3000:]}")
