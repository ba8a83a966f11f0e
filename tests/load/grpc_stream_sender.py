"""gRPC streams: one carries many requests, each answered on it, and is then followed by the next."""

import asyncio
import itertools
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from tests.load.grpc_sender import SERVICE, as_failure, channels, message
from tests.load.plan import Stream
from tests.load.recorder import RequestFailedError, Sending


class GrpcStreamSender:
    """ModelStreamInfer; each channel has one stream that takes requests, in turn."""

    def __init__(self, stream: Stream) -> None:
        self._channels = channels(stream)
        messages = [message(stream, id_=str(number)) for number in range(stream.requests_per_stream)]
        metadata = tuple(stream.headers.items())
        self._lanes = [_Lane(channel, messages, metadata) for channel in self._channels]
        self._turns = itertools.cycle(self._lanes)

    async def send(self, sending: Sending) -> None:
        """On the stream whose turn it is."""
        await next(self._turns).send(sending)

    async def close(self) -> None:
        """End the streams and connections."""
        for lane in self._lanes:
            await lane.close()
        for channel in self._channels:
            await channel.close()


class _Lane:
    def __init__(self, channel: Any, messages: list[bytes], metadata: tuple[tuple[str, str], ...]) -> None:
        self._metadata = metadata
        self._open = channel.stream_stream(
            f"{SERVICE}/ModelStreamInfer", None, service_pb2.ModelStreamInferResponse.FromString
        )
        self._messages = messages
        self._streams: list[_OpenStream] = []

    async def send(self, sending: Sending) -> None:
        if not self._streams or not self._streams[-1].takes_more:
            # Full ones stay until their last answer.
            self._streams = [stream for stream in self._streams if not stream.over]
            self._streams.append(_OpenStream(self._open(metadata=self._metadata), self._messages))
        await self._streams[-1].ask(sending)

    async def close(self) -> None:
        for stream in self._streams:
            await stream.close()


class _OpenStream:
    def __init__(self, call: Any, messages: list[bytes]) -> None:
        self._call, self._messages = call, messages
        self._asked = 0
        self._unwritten: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._answers: dict[str, asyncio.Future[None]] = {}
        self._writing = asyncio.create_task(self._write())
        self._reading = asyncio.create_task(self._read())

    @property
    def over(self) -> bool:
        return self._reading.done()

    @property
    def takes_more(self) -> bool:
        return self._asked < len(self._messages) and not self.over

    async def ask(self, sending: Sending) -> None:
        number = self._asked
        self._asked += 1
        sending.reused_connection = number > 0
        sending.goes()
        answer = self._answers[str(number)] = asyncio.get_running_loop().create_future()
        self._unwritten.put_nowait(self._messages[number])
        if self._asked == len(self._messages):
            self._unwritten.put_nowait(None)
        await answer

    async def close(self) -> None:
        self._call.cancel()
        await asyncio.wait({self._writing, self._reading})

    async def _write(self) -> None:
        try:
            while (content := await self._unwritten.get()) is not None:
                await self._call.write(content)
            await self._call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError):
            return  # the stream is over, and its reader learns why

    async def _read(self) -> None:
        try:
            async for answer in self._call:
                self._settle(answer)
            why = RequestFailedError("stream ended", "before the answer")
        except grpc.aio.AioRpcError as error:
            why = as_failure(error)
        except asyncio.CancelledError:
            why = RequestFailedError("stream cancelled")
        self._writing.cancel()
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(why)

    def _settle(self, answer: Any) -> None:
        # An error may come without the id of its request; then it is the oldest one's.
        id_ = answer.infer_response.id or next(
            (number for number, waiting in self._answers.items() if not waiting.done()), ""
        )
        waiting = self._answers.get(id_)
        if waiting is None or waiting.done():
            return
        if answer.error_message:
            waiting.set_exception(RequestFailedError("stream error", answer.error_message))
        else:
            waiting.set_result(None)
