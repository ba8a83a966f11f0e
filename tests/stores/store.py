"""What all stores have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote

from tests.cluster import waiting
from tests.cluster.ports import free_port
from tests.stores.process import Process
from tests.stores.tls import Tls

BUCKET = "models"
_LOG_SECONDS = 60


class Store(ABC):
    """A server that listens on `address`, and is `host` in its URLs; its files are in `folder`."""

    authenticates = True
    """Whether it refuses `wrong_credentials`."""

    def __init__(
        self, folder: Path, *, address: str = "127.0.0.1", host: str | None = None, tls: Tls | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.address = address
        self.host = host or address
        self.port = free_port(address)
        self.tls = tls

    @property
    def endpoint(self) -> str:
        """As it goes into `model.source.endpoint`, where the scheme has one."""
        return f"{self.scheme}://{self.host}:{self.port}"

    @abstractmethod
    def uri(self, path: str) -> str:
        """As it goes into `model.source.uri`."""

    @property
    def credentials(self) -> dict[str, str]:
        """Entries of a Secret that gives access."""
        return self._login(right=True) | self._trust()

    @property
    def wrong_credentials(self) -> dict[str, str]:
        """Entries of a Secret that the store refuses."""
        return self._login(right=False) | self._trust()

    @property
    @abstractmethod
    def requests(self) -> Counter[str]:
        """
        How often each `METHOD /path`, unquoted and without its query, was asked for, by the tests too.

        A store that is a program of others may log a request after its answer: `await_requests`.
        """

    def await_requests(self, path: str, *, least: int = 1) -> None:
        """Returns when paths that end with this one were asked for so often."""
        waiting.until(
            lambda: sum(count for key, count in self.requests.items() if key.endswith(path)) >= least,
            what=f"That {type(self).__name__} was asked {least} times for {path}",
            timeout_seconds=_LOG_SECONDS,
            todo=f"Read the store's log below {self.folder}.",
        )

    @abstractmethod
    def start(self) -> None:
        """Returns when it can be used."""

    @abstractmethod
    def stop(self) -> None:
        """Returns when nothing of it runs."""

    @abstractmethod
    def put(self, path: str, content: bytes) -> None:
        """Make or replace one file."""

    def put_tree(self, path: str, files: Mapping[str, bytes]) -> None:
        """Make or replace files below a path."""
        for name, content in files.items():
            self.put(f"{path}/{name}", content)

    @abstractmethod
    def delete(self, path: str) -> None:
        """Remove a file, or everything below a path."""

    @property
    def scheme(self) -> str:
        """Of its URLs."""
        return "https" if self.tls else "http"

    @property
    def local_endpoint(self) -> str:
        """Where the tests' own process finds it, which may not resolve `host`."""
        return f"{self.scheme}://{self.address}:{self.port}"

    @abstractmethod
    def _login(self, *, right: bool) -> dict[str, str]: ...

    def _trust(self) -> dict[str, str]:
        return {"ca.crt": self.tls.ca_certificate} if self.tls else {}

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class ProcessStore(Store):
    """A store that is a program of others; it must log every request."""

    def __init__(
        self, folder: Path, *, address: str = "127.0.0.1", host: str | None = None, tls: Tls | None = None
    ) -> None:
        super().__init__(folder, address=address, host=host, tls=tls)
        self._process = Process(folder / "server.log", address=address, port=self.port)

    @property
    def requests(self) -> Counter[str]:
        return self._process.requests()

    @abstractmethod
    def command(self) -> list[str]:
        """The program and its arguments; here it is fetched or built if it is not in the cache."""

    def environment(self) -> dict[str, str]:
        """What it needs besides PATH."""
        return {}

    def prepare(self) -> None:
        """Make what has to be there before anything is put."""

    def start(self) -> None:
        self._process.start(self.command(), self.environment())
        self.prepare()

    def stop(self) -> None:
        self._process.stop()


def counted(method: str, path: str) -> str:
    """A key of `Store.requests`."""
    return f"{method} {unquote(path.partition('?')[0])}"
