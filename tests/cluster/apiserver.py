"""A real API server without nodes, for integration tests: any user, loopback ports of its own, ready in some 5 s."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.cluster import binaries, waiting
from tests.cluster.control_plane import ControlPlane
from tests.cluster.ports import free_port
from tests.cluster.processes import Processes

_PROGRAMS = ("etcd", "kube-apiserver", "kubectl")
_WATCHDOG = 'while read -r _; do :; done; folder=$1; shift; kill -KILL "$@" 2>/dev/null; rm -rf "$folder"'


class ApiServer:
    """`with ApiServer() as api: api.kubectl("get", "ns")`; everything is ended and deleted at the exit.

    With `controllers` the controller manager runs too (garbage collection, Deployments, Jobs, ...), with `scheduler`
    pods are bound to the nodes that a test creates. `plane` are further fields of `ControlPlane`. Several may run at
    once.
    """

    def __init__(self, *, controllers: bool = False, scheduler: bool = False, **plane: Any) -> None:
        self._controllers = controllers
        self._scheduler = scheduler
        self._options = plane
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Starts the parts and returns when they are ready."""
        extra = [
            name
            for name, wanted in (("kube-controller-manager", self._controllers), ("kube-scheduler", self._scheduler))
            if wanted
        ]
        self.bin = binaries.ensure(*_PROGRAMS, *extra)
        self._folder = tempfile.TemporaryDirectory(prefix="conch-api-")
        self.state = Path(self._folder.name)
        self.logs = self.state / "logs"
        ports = [free_port() for _ in range(5)]
        self._plane = ControlPlane(
            binaries=self.bin,
            state=self.state,
            logs=self.logs,
            address="127.0.0.1",
            api_port=ports[0],
            etcd_client_port=ports[1],
            etcd_peer_port=ports[2],
            controller_manager_port=ports[3],
            scheduler_port=ports[4],
            service_network="10.88.0.0/16",
            **self._options,
        )
        self._processes = Processes(records=self.state / "processes", logs=self.logs)
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def _start(self) -> None:
        plane, processes = self._plane, self._processes
        processes.start("etcd", plane.etcd())
        credentials, self.authority = plane.prepare()
        self.kubeconfig = credentials.admin
        self._api_server_argv = plane.api_server(credentials)
        processes.start("kube-apiserver", self._api_server_argv)
        waiting.until(
            plane.ready,
            what="The API server's start",
            timeout_seconds=180,
            todo="Run the test again on a less busy machine.",
            alive=lambda: processes.require_alive("kube-apiserver"),
        )
        # Ready comes a moment before the first namespaces.
        waiting.until(
            lambda: self.kubectl("get", "namespace", "default", check=False).returncode == 0,
            what="The namespace default",
            timeout_seconds=30,
        )
        conditions = []
        if self._controllers:
            processes.start("kube-controller-manager", plane.controller_manager(credentials))
            conditions.append(("kube-controller-manager", plane.controller_manager_ready))
        if self._scheduler:
            processes.start("kube-scheduler", plane.scheduler(credentials))
            conditions.append(("kube-scheduler", plane.scheduler_ready))
        for name, condition in conditions:
            waiting.until(condition, what=f"The start of {name}", timeout_seconds=180)
        self._watch()

    def _watch(self) -> None:
        """A shell that ends the daemons when this process is killed: its standard input then closes."""
        pids = [str(record.pid) for record in self._processes.all()]
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "conch-watchdog", str(self.state), *pids],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends everything and deletes its files."""
        self._stop()

    def _stop(self) -> None:
        if self._watchdog is not None:
            self._watchdog.kill()
            self._watchdog.communicate()
        # The data is thrown away: nothing is gained by a graceful end, which takes the API server seconds.
        self._processes.stop(grace_seconds=0)
        self._folder.cleanup()

    @property
    def server(self) -> str:
        """`https://127.0.0.1:PORT`."""
        return self._plane.server

    @property
    def etcd(self) -> str:
        """etcd's address."""
        return f"http://127.0.0.1:{self._plane.etcd_client_port}"

    def pid(self, part: str) -> int:
        """The process of `etcd`, `kube-apiserver`, ..."""
        record = self._processes.get(part)
        if record is None:
            raise KeyError(part)
        return record.pid

    def kubeconfig_of(self, user: str, *, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig with a certificate for this user."""
        return self._plane.kubeconfig(self.authority, user.replace(":", "-"), user, groups=list(groups))

    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs kubectl as the administrator; with `check` a failure is raised, with kubectl's words."""
        try:
            return subprocess.run(
                [str(self.bin / "kubectl"), f"--kubeconfig={self.kubeconfig}", *args],
                input=input,
                capture_output=True,
                text=True,
                check=check,
            )
        except subprocess.CalledProcessError as error:
            error.add_note(str(error.stderr))
            raise

    def get(self, *args: str) -> Any:
        """What `kubectl get ... -o json` prints, parsed."""
        return json.loads(self.kubectl("get", *args, "-o", "json").stdout)

    def stop_server(self) -> None:
        """Ends the API server alone, as an outage would; etcd keeps the data."""
        self._processes.stop("kube-apiserver")

    def start_server(self) -> None:
        """Starts the API server again at the same address and waits until it is ready."""
        self._processes.start("kube-apiserver", self._api_server_argv)
        waiting.until(self._plane.ready, what="The API server's restart", timeout_seconds=180)
