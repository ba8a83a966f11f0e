"""Sends what a plan says, at the times of its schedules."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from tests.load.plan import Plan, Stream
from tests.load.recorder import NOT_SENT, Recorder, RequestFailedError, Sending
from tests.load.result import Result
from tests.load.schedule import schedules
from tests.load.sender import Sender, sender_of

NO_ANSWER: Final = "no answer in time"
_END_SECONDS: Final = 5.0


class Run:
    """One run of a plan."""

    def __init__(self, plan: Plan, *, make_sender: Callable[[Stream], Sender] = sender_of) -> None:
        self._plan = plan
        self._times = schedules(plan)
        self._make_sender = make_sender
        self._requests: set[asyncio.Task[None]] = set()
        self.stopped = asyncio.Event()
        """Set by who wants it to end before its time."""
        self.recorder = Recorder(plan, planned=sum(map(len, self._times)))

    async def run(self) -> Result:
        """Until everything is sent, or it is stopped, and answered or given up."""
        senders = [self._make_sender(stream) for stream in self._plan.streams]
        began = self.recorder.begin()
        try:
            stop = asyncio.create_task(self.stopped.wait())
            keeping = asyncio.create_task(self._keep_all(senders, began))
            await asyncio.wait({stop, keeping}, return_when=asyncio.FIRST_COMPLETED)
            stopped_early = not keeping.done()
            for task in (stop, keeping):
                task.cancel()
            await asyncio.wait({stop, keeping})
            if not stopped_early:
                keeping.result()  # whatever was wrong with the generator itself
            await self._give_up_late_ones()
            return self.recorder.result(stopped_early=stopped_early)
        finally:
            for sender in senders:
                await sender.close()

    async def _keep_all(self, senders: list[Sender], began: float) -> None:
        async with asyncio.TaskGroup() as group:
            for stream, times, sender in zip(self._plan.streams, self._times, senders, strict=True):
                group.create_task(self._keep(stream, times, sender, began))

    async def _keep(self, stream: Stream, times: list[float], sender: Sender, began: float) -> None:
        for offset in times:
            due = began + offset
            # Also when late: requests begin to go only when this waits.
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            crowded = self.recorder.in_flight >= self._plan.in_flight_most
            sending = self.recorder.due(stream.protocol, due)
            if crowded:
                self.recorder.is_lost(sending, NOT_SENT, "")
                continue
            task = asyncio.create_task(self._request(sender, sending))
            self._requests.add(task)
            task.add_done_callback(self._requests.discard)

    async def _request(self, sender: Sender, sending: Sending) -> None:
        try:
            async with asyncio.timeout(self._plan.timeout_seconds):
                await sender.send(sending)
        except TimeoutError:
            self.recorder.is_lost(sending, NO_ANSWER, f"after {self._plan.timeout_seconds:g} s")
        except RequestFailedError as error:
            self.recorder.is_lost(sending, error.kind, str(error))
        except asyncio.CancelledError:
            self.recorder.is_lost(sending, NO_ANSWER, "given up at the end")
        except Exception as error:  # whatever it is, it is a request that was not answered
            self.recorder.is_lost(sending, type(error).__name__, str(error))
        else:
            self.recorder.is_answered(sending)

    async def _give_up_late_ones(self) -> None:
        if self._requests:
            await asyncio.wait(self._requests, timeout=self._plan.timeout_seconds + _END_SECONDS)
        for task in tuple(self._requests):
            task.cancel()
        if self._requests:
            await asyncio.wait(self._requests)
