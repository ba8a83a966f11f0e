"""HTTP/1.1 on connections that are kept, as many as are needed at a time."""

import json
import ssl
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from conch.client.http_server import infer_body, infer_path
from tests.load.plan import Stream
from tests.load.recorder import RequestFailedError, Sending
from tests.load.sender import tensors

_KEPT_SECONDS: Final = 60.0


class HttpSender:
    """Inference with binary tensors."""

    def __init__(self, stream: Stream) -> None:
        self._session = _session(stream)
        self._server_name = stream.server_name
        self._path = infer_path(stream.model)
        self._headers, self._body = infer_body(tensors(stream))

    async def send(self, sending: Sending) -> None:
        """Sent once: aiohttp repeats only what is idempotent, which a POST is not."""
        sending.goes()
        async with self._session.post(
            self._path,
            data=self._body,
            headers=self._headers,
            trace_request_ctx=sending,
            server_hostname=self._server_name,
        ) as response:
            content = await response.read()
            _must_be_ok(response, content)
            if not content:
                raise RequestFailedError("empty answer")

    async def close(self) -> None:
        """End the connections."""
        await self._session.close()


class SseSender:
    """`generate_stream`: events until the server ends them."""

    def __init__(self, stream: Stream) -> None:
        self._session = _session(stream)
        self._server_name = stream.server_name
        self._path = f"/v2/models/{quote(stream.model, safe='')}/generate_stream"
        self._body = json.dumps(stream.generate).encode()

    async def send(self, sending: Sending) -> None:
        """Answered by at least one event and a regular end."""
        sending.goes()
        events = 0
        async with self._session.post(
            self._path,
            data=self._body,
            headers={"Content-Type": "application/json"},
            trace_request_ctx=sending,
            server_hostname=self._server_name,
        ) as response:
            if response.status != 200:
                _must_be_ok(response, await response.read())
            async for line in response.content:
                if not line.startswith(b"data:"):
                    continue
                events += 1
                if (told := _error(line.removeprefix(b"data:"))) is not None:
                    raise RequestFailedError("SSE error", told)
        if not events:
            raise RequestFailedError("SSE without an event")

    async def close(self) -> None:
        """End the connections."""
        await self._session.close()


def _session(stream: Stream) -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_reused)
    trace.on_connection_create_start.append(_created)
    context = ssl.create_default_context(cafile=stream.ca_file) if stream.ca_file else True
    return aiohttp.ClientSession(
        f"{'https' if stream.ca_file else 'http'}://{stream.address}",
        # Without a limit: a request that waits for a connection would not go at its time.
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEPT_SECONDS, ssl=context),
        headers=stream.headers,
        timeout=aiohttp.ClientTimeout(total=None),
        trace_configs=[trace],
        auto_decompress=False,
        trust_env=False,
    )


async def _reused(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any) -> None:
    context.trace_request_ctx.reused_connection = True


async def _created(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any) -> None:
    context.trace_request_ctx.reused_connection = False


def _must_be_ok(response: aiohttp.ClientResponse, content: bytes) -> None:
    if response.status != 200:
        raise RequestFailedError(f"HTTP {response.status}", content[:1000].decode(errors="replace"))


def _error(data: bytes) -> str | None:
    try:
        told = json.loads(data)
    except ValueError:
        return f"an event that is not JSON: {data[:200]!r}"
    return str(told["error"]) if isinstance(told, dict) and "error" in told else None
