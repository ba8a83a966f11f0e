"""`kubectl port-forward` as a child: with whatever its user has set up for it (contexts, login plugins, proxies)."""

import asyncio
import re
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from conch.client.errors import ClientError, ForwardError
from conch.client.target import Target

LOOPBACK: Final = "127.0.0.1"
START_SECONDS: Final = 60.0
END_SECONDS: Final = 5.0
_WORDS_KEPT: Final = 4
_LISTENS: Final = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) -> \d+")
_CANNOT_LISTEN: Final = "Unable to listen on port"


class Forward:
    """A running kubectl that forwards; `local_ports` are in the order in which they were asked for."""

    def __init__(self, process: Process) -> None:
        self.local_ports: tuple[int, ...] = ()
        self._process = process
        self._said: deque[str] = deque(maxlen=_WORDS_KEPT)
        self._listening = asyncio.Event()
        # Both are read to their end: kubectl tells of every connection, and would stop at a full pipe.
        self._readers = (asyncio.create_task(self._read_output()), asyncio.create_task(self._read_errors()))

    @property
    def last_words(self) -> str:
        """What kubectl complained about last."""
        return " ".join(self._said)

    async def listening(self, count: int) -> None:
        """Until that many ports listen. Raises ForwardError."""
        while len(self.local_ports) < count:
            self._listening.clear()
            ended = asyncio.create_task(self.ended())
            more = asyncio.create_task(self._listening.wait())
            await asyncio.wait({ended, more}, return_when=asyncio.FIRST_COMPLETED)
            for waiting in (ended, more):
                waiting.cancel()
            if len(self.local_ports) < count and (ended.done() or self._refused_a_port()):
                raise ForwardError(f"kubectl port-forward: {self.last_words or 'it ended without a word'}")

    async def ended(self) -> None:
        """Until kubectl has ended and everything that it said is read."""
        await self._process.wait()
        await asyncio.gather(*map(asyncio.shield, self._readers))

    async def stop(self) -> None:
        """End kubectl."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(END_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
        await self.ended()

    def _refused_a_port(self) -> bool:
        # With one port of several taken, kubectl goes on with the others.
        return any(_CANNOT_LISTEN in line for line in self._said)

    async def _read_output(self) -> None:
        async for line in _lines(self._process.stdout):
            if found := _LISTENS.match(line):
                self.local_ports += (int(found.group(1)),)
                self._listening.set()

    async def _read_errors(self) -> None:
        async for line in _lines(self._process.stderr):
            self._said.append(line)
            self._listening.set()


@asynccontextmanager
async def forwarding(
    target: Target, ports: Sequence[tuple[int, int]], *, context: str | None = None
) -> AsyncIterator[Forward]:
    """Forward (local, pod's) ports on loopback while the block runs; local port 0 is any free one.

    Raises ForwardError when kubectl does not come to that, ClientError when there is no kubectl.
    """
    command = ["port-forward", f"--namespace={target.namespace}", f"--address={LOOPBACK}", f"pod/{target.pod}"]
    chosen = [f"--context={context}"] if context else []
    pairs = [f"{local or ''}:{remote}" for local, remote in ports]
    try:
        process = await asyncio.create_subprocess_exec(
            "kubectl", *chosen, *command, *pairs, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
        )
    except OSError as error:
        raise ClientError(
            f"kubectl cannot be run ({error.strerror}). The way to a pod goes through it: install it, on your PATH."
        ) from error
    forward = Forward(process)
    try:
        try:
            async with asyncio.timeout(START_SECONDS):
                await forward.listening(len(pairs))
        except TimeoutError as error:
            words = forward.last_words or "it says nothing"
            raise ForwardError(f"kubectl port-forward did not begin within {START_SECONDS:.0f} s: {words}") from error
        yield forward
    finally:
        await forward.stop()


async def _lines(stream: asyncio.StreamReader | None) -> AsyncIterator[str]:
    if stream is None:
        return
    async for line in stream:
        if text := line.decode(errors="replace").strip():
            yield text
