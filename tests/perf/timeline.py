"""When things become true of live objects, seen through one `kubectl get --watch` each."""

import json
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from tests.cluster.client import Cluster
from tests.support.waiting import until

Fact = Callable[[dict[str, Any]], bool]


class Timeline:
    """Watches one kind in a namespace and notes, in seconds since `start`, when each named fact is first true."""

    def __init__(self, cluster: Cluster, namespace: str, kind: str, facts: dict[str, Fact]) -> None:
        self.seconds: dict[str, float] = {}
        self._facts = facts
        self._started = time.monotonic()
        self._watch = subprocess.Popen(
            [
                *(str(cluster.bin / "kubectl"), f"--kubeconfig={cluster.kubeconfig}", "get", kind, "-n", namespace),
                *("--watch", "-o", "json"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.terminate()
        self._watch.wait()
        self._thread.join()
        if self._watch.stdout:
            self._watch.stdout.close()

    def start(self) -> None:
        """Count from now."""
        self._started = time.monotonic()

    def wait(self, fact: str, *, seconds: float = 120) -> float:
        """The time at which the fact became true."""
        return until(lambda: self.seconds.get(fact), fact, seconds=seconds)

    def _read(self) -> None:
        assert self._watch.stdout
        decoder, text = json.JSONDecoder(), ""
        for line in self._watch.stdout:
            text += line
            # kubectl prints one indented object after the other; each ends with a brace in the first column.
            if line.rstrip() == "}":
                live, _ = decoder.raw_decode(text)
                text = ""
                self._note(live)

    def _note(self, live: dict[str, Any]) -> None:
        now = time.monotonic() - self._started
        for name, fact in self._facts.items():
            if name not in self.seconds and fact(live):
                self.seconds[name] = now
