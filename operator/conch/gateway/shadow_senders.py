"""Sends a copy of a request to one server, and gives what came of it. Never raises for what a server does."""

import asyncio
import io
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import aiohttp
from yarl import URL

from conch.gateway.envoy.cluster import ServerPorts
from conch.gateway.envoy.naming import Protocol
from conch.gateway.shadow_outcomes import Answered, Failed, Outcome, TooLarge

ANSWER_BYTES_MOST: Final = 2 << 20
HEADER_LENGTH: Final = "Inference-Header-Content-Length"
"""Where the JSON part of a body with binary tensors ends."""
_FRAME: Final = 5
"""Bytes before a message of gRPC: whether it is compressed, and its length."""
_COPIED_HEADERS: Final = ("Content-Type", HEADER_LENGTH)
_WORDS_MOST: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """What Envoy copied, without its body."""

    protocol: Protocol
    path: str
    """As the client sent it, encoded."""
    headers: Mapping[str, str]

    @property
    def is_encoded(self) -> bool:
        """Whether its body is compressed as a whole, which is not undone here."""
        encodings = (self.headers.get("Content-Encoding", ""), self.headers.get("Grpc-Encoding", ""))
        return any(each not in ("", "identity") for each in encodings)

    def head_of(self, body: bytes) -> bytes:
        """The part of its body that is not a tensor's bytes, as far as that is known without reading it."""
        length = self.headers.get(HEADER_LENGTH, "")
        return body[: int(length)] if self.protocol is Protocol.HTTP and length.isdecimal() else body


class Senders:
    """Over both protocols. No connection outlives its request: a pod that leaves waits for those that are open."""

    def __init__(self, ports: ServerPorts, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ports = ports
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._grpc_aio: Any = None

    async def ask(self, address: str, copy: Copy, body: bytes, *, seconds: float) -> Outcome:
        """Once. The server has all of the time, whether it takes connections or not."""
        if copy.protocol is Protocol.GRPC and self._grpc_aio is None:
            # Most gateways need it never, or long after their start; and its import takes a while, in nobody's way.
            self._grpc_aio = await asyncio.get_running_loop().run_in_executor(None, import_module, "grpc.aio")
        asked = self._clock()
        try:
            async with asyncio.timeout(seconds):
                found = await (self._grpc if copy.protocol is Protocol.GRPC else self._http)(address, copy, body)
        except TimeoutError:
            return Failed(words=f"no answer within {seconds:g} s")
        if isinstance(found, Failed | TooLarge):
            return found
        content, headers = found
        return Answered(body=content, headers=headers, milliseconds=1000 * (self._clock() - asked))

    async def close(self) -> None:
        """End what is open."""
        if self._session is not None:
            await self._session.close()

    async def _http(self, address: str, copy: Copy, body: bytes) -> tuple[bytes, Mapping[str, str]] | Failed | TooLarge:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=True), trust_env=False, auto_decompress=False
            )
        host = f"[{address}]" if ":" in address else address
        url = URL(f"http://{host}:{self._ports.http}{copy.path}", encoded=True)
        headers = {name: copy.headers[name] for name in _COPIED_HEADERS if name in copy.headers}
        headers["Accept-Encoding"] = "identity"
        try:
            async with self._session.post(
                url,
                data=io.BytesIO(body),
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None),
            ) as response:
                content = bytearray()
                async for chunk in response.content.iter_any():
                    content += chunk
                    if len(content) > ANSWER_BYTES_MOST:
                        return TooLarge()
                if response.status != 200:
                    return Failed(words=f"HTTP {response.status} {response.reason or ''}".strip())
                return bytes(content), response.headers
        except (aiohttp.ClientError, OSError) as error:
            return Failed(words=f"no answer: {_cut(str(error) or type(error).__name__)}")

    async def _grpc(self, address: str, copy: Copy, body: bytes) -> tuple[bytes, Mapping[str, str]] | Failed | TooLarge:
        message = _message(body)
        if message is None:
            return Failed(words="the request is no single message of gRPC")
        host = f"[{address}]" if ":" in address else address
        options = (
            # Proxies of the machine are for elsewhere, and a copy is sent once, by a connection of its own.
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", ANSWER_BYTES_MOST),
        )
        channel: Any = self._grpc_aio.insecure_channel(f"{host}:{self._ports.grpc}", options=options)
        try:
            call = channel.unary_unary(copy.path)
            return bytes(await call(message)), {}
        except self._grpc_aio.AioRpcError as error:
            details = error.details() or ""
            if error.code().name == "RESOURCE_EXHAUSTED" and "larger than max" in details:
                return TooLarge()
            return Failed(words=f"gRPC {error.code().name}")
        finally:
            await channel.close()


def _message(body: bytes) -> bytes | None:
    """The one message of a unary request; None for anything else."""
    if len(body) < _FRAME or body[0] != 0 or int.from_bytes(body[1:_FRAME], "big") != len(body) - _FRAME:
        return None
    return body[_FRAME:]


def _cut(text: str) -> str:
    return text if len(text) <= _WORDS_MOST else text[: _WORDS_MOST - 1] + "…"
