"""A TCP relay that delivers everything a client sends some time later: a slow API server, without a fast one's luck.

Replies are passed on at once, so each call takes the delay once.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress


class DelayedProxy:
    """Relays from one port of loopback to another."""

    def __init__(self, *, target_port: int, delay_seconds: float) -> None:
        self._target_port = target_port
        self._delay_seconds = delay_seconds

    async def serve(self, port: int) -> None:
        """Relay until cancelled."""
        server = await asyncio.start_server(self._relay, "127.0.0.1", port)
        async with server:
            await server.serve_forever()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        tasks = [
            asyncio.ensure_future(self._pass_on(reader, up_writer, self._delay_seconds)),
            asyncio.ensure_future(self._pass_on(up_reader, writer, 0.0)),
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for each in (writer, up_writer):
            with suppress(OSError):
                each.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(1 << 16):
            if delay_seconds:
                # Each piece on a timer of its own: a delay of every byte, not a limit on how many pass.
                loop.call_later(delay_seconds, _write, writer, data)
            else:
                writer.write(data)
                await writer.drain()


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)


if __name__ == "__main__":
    port, target, delay = sys.argv[1:]
    asyncio.run(DelayedProxy(target_port=int(target), delay_seconds=float(delay)).serve(int(port)))
