"""The way out for clients that dial by themselves (obstore, huggingface_hub): a proxy on loopback that checks first.

Their own connections could be led anywhere: by what a name resolves to, by a redirect, by an endpoint that a credential
file names. As a proxy we get each of these as a host to connect to: it is resolved here, every address is checked
against the policy, and what was checked is dialled. Tunnels (CONNECT, for https) are relayed unread; plain http comes
with the whole URL in its first line and is handed on in origin form. Bytes are moved by splice(2), not by Python: a
proxy in front of a fast store must not be what is slow.
"""

import asyncio
import fcntl
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import h11
from aiohttp.abc import ResolveResult

from conch.api.reasons import Reason
from conch.api.source_policy import SourcePolicy
from conch.store.addresses import PolicyResolver
from conch.store.errors import StoreError

CONNECT_SECONDS: Final = 4.0
IDLE_SECONDS: Final = 60.0
HEAD_BYTES_MOST: Final = 64 << 10
CONNECTIONS_MOST: Final = 64
_PIPE_BYTES: Final = 1 << 20
_STREAM_BYTES: Final = 32 << 10
_GATHER_SECONDS: Final = 0.001
"""How long a stream's next bytes may gather: moving each TLS record by itself would cost as much as decrypting it."""
_HOP_BY_HOP: Final = frozenset({b"proxy-connection", b"proxy-authorization", b"connection", b"keep-alive"})


class EgressProxy:
    """Listens on loopback from `start` to `close`; one per fetch, with that fetch's policy."""

    def __init__(self, resolver: PolicyResolver, policy: SourcePolicy) -> None:
        self._resolver = resolver
        self._policy = policy
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS_MOST)
        self._open: set[socket.socket] = set()
        self._asked: set[Future[list[ResolveResult]]] = set()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False
        self._problem: StoreError | str | None = None

    @property
    def url(self) -> str:
        """As clients want it."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def take_problem(self) -> StoreError | str | None:
        """Why a connection was refused (StoreError) or could not be made (words), since this was last asked.

        Clients say no more than that their proxy did not do it.
        """
        problem, self._problem = self._problem, None
        return problem

    def start(self) -> None:
        """Accept from now on; names are resolved in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._spawn(self._accept)

    def close(self) -> None:
        """End everything."""
        self._closing = True
        # A thread that waits in accept() is woken by this, not by close().
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            asked = tuple(self._asked)
        for each in asked:
            each.cancel()

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                full = len(self._open) >= 2 * CONNECTIONS_MOST
            if full:
                client.close()
                continue
            self._spawn(partial(self._serve, client))

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError, h11.ProtocolError), self._tracked(client):
            client.settimeout(IDLE_SECONDS)
            request, rest = _read_head(client)
            target = _target(request)
            if target is None:
                _answer(client, 400, "this proxy takes CONNECT, or http:// with the whole URL")
                return
            try:
                upstream = self._dial(target)
            except StoreError as error:
                self._problem = error
                _answer(client, 403, error.message)
                return
            except OSError as error:
                self._problem = _words(target, error)
                _answer(client, 502, self._problem)
                return
            self._problem = None
            with self._tracked(upstream):
                if request.method == b"CONNECT":
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    upstream.sendall(rest)
                    _relay(client, upstream, _moved)
                else:
                    requests = _Requests(target, request, rest, upstream)
                    if requests.begin():
                        _relay(client, upstream, requests.forward)

    def _dial(self, target: "_Target") -> socket.socket:
        if not self._policy.allows_host(target.host):
            raise StoreError(
                Reason.SOURCE_NOT_ALLOWED,
                f"host {target.host} is not in this installation's list of allowed model hosts "
                "(chart: policy.sources.allowedHosts)",
            )
        assert self._loop  # noqa: S101 - started
        asked = asyncio.run_coroutine_threadsafe(
            self._resolver.resolve(target.host, target.port, socket.AF_UNSPEC), self._loop
        )
        with self._lock:
            self._asked.add(asked)
        try:
            if self._closing:
                raise TimeoutError
            addresses = [result["host"] for result in asked.result(CONNECT_SECONDS)]
        except CancelledError as error:
            raise TimeoutError from error
        finally:
            with self._lock:
                self._asked.discard(asked)
            if not asked.done():
                asked.cancel()
        failure = OSError("the name has no address")
        for address in addresses:
            try:
                upstream = socket.create_connection((address, target.port), CONNECT_SECONDS)
            except OSError as error:
                failure = error
                continue
            upstream.settimeout(IDLE_SECONDS)
            return upstream
        raise failure

    @contextmanager
    def _tracked(self, connection: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.add(connection)
        try:
            with connection:
                if self._closing:
                    raise OSError("the proxy is closed")
                yield
        finally:
            with self._lock:
                self._open.discard(connection)

    @staticmethod
    def _spawn(work: Callable[[], None]) -> None:
        threading.Thread(target=work, daemon=True, name="egress").start()


@dataclass(frozen=True, slots=True)
class _Target:
    host: str
    port: int


class _Requests:
    """The requests of one client connection to one plain-http host, each handed on in origin form."""

    def __init__(self, target: _Target, first: h11.Request, rest: bytes, upstream: socket.socket) -> None:
        self._target = target
        self._upstream = upstream
        self._parser = _parser()
        self._body_left = 0
        self._first = first
        self._rest = rest

    def forward(self, client: socket.socket, _upstream: socket.socket, _pipe: tuple[int, int]) -> bool:
        """Hand on what the client sent; False when it closed, or asks for another host on this connection."""
        data = client.recv(HEAD_BYTES_MOST)
        return bool(data) and self._take(data)

    def begin(self) -> bool:
        """Hand on the first request, and what came with it."""
        self._hand_on(self._first)
        return self._take(self._rest)

    def _take(self, data: bytes) -> bool:
        while data:
            if self._body_left:
                body, data = data[: self._body_left], data[self._body_left :]
                self._body_left -= len(body)
                self._upstream.sendall(body)
                continue
            self._parser.receive_data(data)
            event = self._parser.next_event()
            if event is h11.NEED_DATA:
                return True
            if not isinstance(event, h11.Request) or _target(event) != self._target or event.method == b"CONNECT":
                return False
            self._hand_on(event)
            data, _ = self._parser.trailing_data
            # A parser reads one head; a body goes on as it comes.
            self._parser = _parser()
        return True

    def _hand_on(self, request: h11.Request) -> None:
        self._body_left = _content_length(request)
        parts = urlsplit(request.target.decode())
        path = parts.path or "/"
        target = f"{path}?{parts.query}" if parts.query else path
        headers = [(name, value) for name, value in request.headers if name not in _HOP_BY_HOP]
        origin = h11.Request(method=request.method, target=target, headers=headers)
        head = h11.Connection(h11.CLIENT).send(origin)
        if head:
            self._upstream.sendall(head)


def _parser() -> h11.Connection:
    return h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MOST)


def _read_head(client: socket.socket) -> tuple[h11.Request, bytes]:
    """The first request's head, and what the client sent after it."""
    parser = _parser()
    while True:
        data = client.recv(HEAD_BYTES_MOST)
        if not data:
            raise OSError("the client left")
        parser.receive_data(data)
        event = parser.next_event()
        if isinstance(event, h11.Request):
            return event, parser.trailing_data[0]


def _target(request: h11.Request) -> _Target | None:
    try:
        tunnel = request.method == b"CONNECT"
        parts = urlsplit(f"//{request.target.decode()}" if tunnel else request.target.decode())
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or not (tunnel or parts.scheme == "http"):
        return None
    return _Target(parts.hostname, port or (443 if tunnel else 80))


def _content_length(request: h11.Request) -> int:
    headers = dict(request.headers)
    if b"transfer-encoding" in headers:
        raise OSError("a body of unknown length is not handed on")
    return int(headers.get(b"content-length", b"0"))


def _relay(
    client: socket.socket,
    upstream: socket.socket,
    forward: Callable[[socket.socket, socket.socket, tuple[int, int]], bool],
) -> None:
    """Move bytes both ways until one side closes or nothing comes for long."""
    for side in (client, upstream):
        side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    poll = select.poll()
    poll.register(client, select.POLLIN)
    poll.register(upstream, select.POLLIN)
    pipe = os.pipe()
    try:
        with suppress(OSError):  # more than the system allows: then it is as large as it is
            fcntl.fcntl(pipe[0], fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        while ready := poll.poll(IDLE_SECONDS * 1000):
            for descriptor, _ in ready:
                if descriptor == upstream.fileno():
                    if not _moved(upstream, client, pipe):
                        return
                elif not forward(client, upstream, pipe):
                    return
    finally:
        os.close(pipe[0])
        os.close(pipe[1])


def _moved(source: socket.socket, sink: socket.socket, pipe: tuple[int, int]) -> bool:
    """Move what can be read now; False at its end."""
    try:
        left = os.splice(source.fileno(), pipe[1], _PIPE_BYTES, flags=os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK)
    except BlockingIOError:
        return True
    if left == 0:
        return False
    streams = left >= _STREAM_BYTES
    while left:
        try:
            left -= os.splice(pipe[0], sink.fileno(), left, flags=os.SPLICE_F_MOVE)
        except BlockingIOError:
            select.select([], [sink], [], IDLE_SECONDS)
    if streams:
        time.sleep(_GATHER_SECONDS)
    return True


def _answer(client: socket.socket, status: int, message: str) -> None:
    body = f"{message}\n".encode()
    lines = (
        f"HTTP/1.1 {status} conch",
        "Content-Type: text/plain",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    client.sendall("\r\n".join((*lines, "", "")).encode() + body)


def _words(target: _Target, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"the name {target.host} does not resolve"
    if isinstance(error, TimeoutError):
        return f"no connection to {target.host}:{target.port} within {CONNECT_SECONDS:g} s"
    return f"no connection to {target.host}:{target.port} ({error.strerror or error})"
