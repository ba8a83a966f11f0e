"""The operator as a process of its own on this machine, against any API server."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.ports import free_port
from tests.support.waiting import until

_CONCH: Final = Path(sys.executable).with_name("conch")
_SETTINGS: Final[dict[str, Any]] = {
    "images": {"triton": "localhost/triton:dev", "agent": "localhost/conch:dev"},
    "logLevel": "debug",
}


class OperatorProcess:
    """`conch operator`; started on entering, killed on leaving if it still runs."""

    def __init__(
        self,
        kubeconfig: Path,
        folder: Path,
        *,
        name: str = "operator",
        command: Sequence[str] = (str(_CONCH),),
        **settings: Any,
    ) -> None:
        self.port = free_port()
        self._kubeconfig = kubeconfig
        self._folder = folder
        self._name = name
        self._command = command
        self._settings = {**_SETTINGS, **settings, "healthPort": self.port}
        self.log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and wait until it knows the cluster."""
        settings, key = self._folder / f"{self._name}.yaml", self._folder / "installation-key"
        settings.write_text(yaml.safe_dump(self._settings))
        key.write_text("k" * 64)
        token = self._folder / "gateway-token"
        token.write_text("t" * 64)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(*self._command, "operator", "--settings", str(settings), "--installation-key", str(key)),
                    *("--gateway-token", str(token), "--namespace", "conch-system"),
                ],
                env={**os.environ, "KUBECONFIG": str(self._kubeconfig)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until(lambda: self.get("/readyz").startswith("ready"), f"{self._name} to be ready (log: {self.log})")

    @property
    def pid(self) -> int:
        """The running process."""
        assert self._process is not None
        return self._process.pid

    def get(self, path: str) -> str:
        """Ask its health port."""
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=30, trust_env=False).text

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over its samples that have these labels."""
        families = text_string_to_metric_families(self.get("/metrics"))
        samples = (sample for family in families for sample in family.samples if sample.name == name)
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    def leads(self) -> bool:
        """Whether this process is the leader."""
        return self.metric("conch_leading") == 1

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def terminate(self) -> int:
        """SIGTERM; returns the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=20)
