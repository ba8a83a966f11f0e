"""The agent's loop: look, decide, act, report. Called by the command `conch agent`."""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from aiohttp.abc import AbstractResolver

from conch.agent.assignment_file import AssignmentFile
from conch.agent.connections import open_connections
from conch.agent.decide import Failure, Idle, Server, Step, Wanted, next_step, running_instances
from conch.agent.errors import StepError
from conch.agent.leaving import Leaving, LeavingTimes
from conch.agent.reporting import FetchMeter, agent_log, make_report, phase_of
from conch.agent.server import serve
from conch.agent.settings import AgentSettings
from conch.agent.steps import Steps
from conch.agent.volume import Volume
from conch.api import pod
from conch.api.assignment import AgentPhase, AgentReport, Assignment, InferenceCounts, Pin
from conch.api.reasons import Reason
from conch.store import Progress, in_thread, without_query
from conch.store.composed import tells_versions
from conch.store.fetch import REFETCH_BYTES_MOST
from conch.triton.client import TritonClient
from conch.triton.metrics import MetricsReader

RETRY_FIRST_SECONDS = 2.0
RETRY_MOST_SECONDS = 30.0
_FAULTS_OF_THE_MODEL = (Reason.INVALID_MODEL, Reason.MODEL_LOAD_FAILED)


async def run(settings: AgentSettings, *, resolver: AbstractResolver | None = None) -> None:
    """Serve until SIGTERM or SIGINT (or cancellation); raises only what a restart of the container may cure."""
    volume = Volume(settings.model_folder)
    loop = asyncio.get_running_loop()
    # Python's default grows with the node's cores; each thread costs memory beside every model.
    loop.set_default_executor(ThreadPoolExecutor(max_workers=8, thread_name_prefix="agent"))
    stop = asyncio.Event()
    with _signals(loop, stop):
        async with (
            TritonClient(settings.triton_address, settings.admin_key) as triton,
            MetricsReader(settings.triton_metrics_address) as metrics,
        ):
            agent = Agent(settings, volume, triton, metrics, resolver)
            leaving = Leaving(
                connections=lambda: open_connections((pod.HTTP_PORT, pod.GRPC_PORT)),
                is_live=triton.live,
                times=LeavingTimes(
                    propagation_seconds=settings.propagation_seconds, drain_seconds=settings.drain_seconds
                ),
                clock=time.monotonic,
            )
            runner = await serve(settings, agent.report, agent.take_pin, leaving.wait)
            try:
                await in_thread(lambda _checkpoint: volume.prepare())
                work = asyncio.ensure_future(agent.work())
                stopped = asyncio.ensure_future(stop.wait())
                try:
                    await asyncio.wait([work, stopped], return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in (work, stopped):
                        task.cancel()
                    results = await asyncio.gather(work, stopped, return_exceptions=True)
                if isinstance(results[0], Exception):
                    raise results[0]
            finally:
                await runner.cleanup()


class Agent:
    """One assigned model, from wherever it is to served."""

    def __init__(
        self,
        settings: AgentSettings,
        volume: Volume,
        triton: TritonClient,
        metrics: MetricsReader,
        resolver: AbstractResolver | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._volume = volume
        self._steps = Steps(settings, volume, triton, metrics, self._begin_fetch, resolver, clock=clock)
        self._file = AssignmentFile(settings.assignment_file)
        self._clock = clock
        self._log = agent_log()
        self._failure: Failure | None = None
        self._wanted: Wanted | None = None
        self._read: Assignment | None = None
        self._pin: Pin | None = None
        self._fetching = FetchMeter(clock)
        self._report = AgentReport(phase=AgentPhase.STARTING)

    def report(self) -> AgentReport:
        """What the operator is told."""
        if self._report.phase is AgentPhase.FETCHING:
            return self._report.model_copy(update=self._fetching.fields())
        return self._report

    def take_pin(self, pin: Pin) -> None:
        """The operator says which files this revision has, sooner than the kubelet brings the assignment that says it.

        It holds until the assignment's file brings another one.
        """
        self._pin = pin

    async def work(self) -> None:
        """Look, decide, act, for ever."""
        keeping = asyncio.ensure_future(self._steps.keep_cache())
        try:
            await self._look_and_act()
        finally:
            keeping.cancel()
            await asyncio.wait({keeping})

    async def _look_and_act(self) -> None:
        while True:
            problem = self._take_assignment()
            server = await self._steps.observe(self._wanted)
            disk = await asyncio.to_thread(self._volume.disk)
            step = next_step(
                wanted=self._wanted,
                disk=disk,
                server=server,
                failure=self._failure,
                golden=self._steps.golden,
                resizing=self._steps.resizing,
                now=self._clock(),
            )
            if isinstance(step, Idle) and step.phase is AgentPhase.READY:
                self._failure = None
            serves = self._wanted is not None and phase_of(step) is AgentPhase.READY
            counts = await self._steps.inference_counts(self._wanted) if self._wanted and serves else None
            self._tell(step, problem, server, counts)
            if isinstance(step, Idle):
                await asyncio.sleep(self._pause(server))
            else:
                await self._act(step)

    def _take_assignment(self) -> str | None:
        """Take what the file says; a changed assignment starts with a clean slate. Returns a problem with the file."""
        read = self._file.read()
        current = self._wanted.assignment if self._wanted else None
        if read.assignment != self._read:
            self._read, self._pin = read.assignment, None
        # Without a file the last assignment stays: a mount that is gone for a moment must not stop the serving.
        given = read.assignment or current
        pin = self._pin
        if pin is None and given is not None and given.pin is None and current and current.revision == given.revision:
            # An assignment never takes a pin back: this one was written before it was known.
            pin = current.pin
        if given is not None and pin is not None:
            given = given.model_copy(update={"pin": pin})
        if given is not None and given != current:
            self._wanted = Wanted.of(given)
            self._failure = None
            if current is None or current.instances != given.instances:
                self._steps.assign_instances()
            self._log.info(
                "assigned",
                revision=given.revision,
                model=given.name,
                version=given.version,
                instances=given.instances,
                uri=without_query(given.source.uri),
                digest=self._wanted.expected_digest,
            )
        return read.problem

    async def _act(self, step: Step) -> None:
        """Carry out a step, unless the assignment changes meanwhile: then what it does is not wanted any more."""
        started = self._clock()
        task = asyncio.ensure_future(self._steps.run(step))
        try:
            while not task.done():
                await asyncio.wait([task], timeout=self._settings.poll_seconds)
                if not task.done() and self._assignment_changed():
                    task.cancel()
                elif not task.done() and phase_of(step) is AgentPhase.READY and self._wanted:
                    # It serves meanwhile, for minutes perhaps, and what it counts must not look old.
                    counts = await self._steps.inference_counts(self._wanted)
                    self._report = self._report.model_copy(update={"inference": counts})
            with contextlib.suppress(asyncio.CancelledError):
                await task
        except StepError as error:
            self._failed(step, error.reason, error.message)
        except Exception as error:
            self._log.exception("step_crashed", step=type(step).__name__)
            self._failed(step, Reason.MODEL_LOAD_FAILED, f"the agent failed in an unexpected way: {error!r}")
        else:
            if self._failure and not task.cancelled():
                done = self._failure.stage is phase_of(step)
                self._failure = None if done else replace(self._failure, refetch=False)
            self._log.info("step", step=type(step).__name__, seconds=round(self._clock() - started, 3))
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    def _assignment_changed(self) -> bool:
        """A pin alone stops nothing: most likely it is of what is on its way. Nor does a number of instances alone."""
        read = self._file.read()
        if read.assignment is None or self._wanted is None:
            return False
        left_out = {"pin": None, "instances": None}
        return read.assignment.model_copy(update=left_out) != self._wanted.assignment.model_copy(update=left_out)

    def _failed(self, step: Step, reason: Reason, message: str) -> None:
        attempts = self._failure.attempts + 1 if self._failure else 1
        pause = min(RETRY_MOST_SECONDS, RETRY_FIRST_SECONDS * 2 ** min(attempts - 1, 8))
        pause *= random.uniform(0.75, 1.0)  # noqa: S311 - jitter
        news = self._failure is None or (self._failure.reason, self._failure.message) != (reason, message)
        self._failure = Failure(
            stage=phase_of(step),
            reason=reason,
            message=message,
            attempts=attempts,
            retry_at=self._clock() + pause,
            refetch=self._may_be_repaired(reason),
        )
        if news:
            self._log.warning("failed", step=type(step).__name__, reason=reason.value, message=message)

    def _may_be_repaired(self, reason: Reason) -> bool:
        """Whether other files may lie at the source by now that would do better."""
        if self._wanted is None or self._wanted.assignment.is_declared or reason not in _FAULTS_OF_THE_MODEL:
            return False
        record = self._volume.record(self._wanted.fetch_key)
        if record is None:
            return False
        parts = [model.name for model in self._wanted.models]
        told = tells_versions(record.resolved, parts) if len(parts) > 1 else bool(record.resolved)
        return told or record.is_at_its_source or record.bytes <= REFETCH_BYTES_MOST

    def _tell(self, step: Step, problem: str | None, server: Server, counts: InferenceCounts | None) -> None:
        """Publish the report that belongs to a step."""
        wanted = self._wanted
        report = make_report(
            step=step,
            wanted=wanted,
            failure=self._failure,
            record=self._volume.record(wanted.fetch_key) if wanted else None,
            cache=self._steps.cache_report(wanted) if wanted else None,
            fetched=self._fetching.fields(),
            golden=self._steps.golden,
            inference=counts,
            running=running_instances(server, wanted) if wanted else None,
            resizing=self._steps.resizing,
            metrics=self._steps.metrics,
        )
        if problem and report.phase is not AgentPhase.READY:
            report = report.model_copy(
                update={"phase": AgentPhase.FAILED, "reason": Reason.INVALID_SPEC, "message": problem[:2048]}
            )
        if report.phase is not self._report.phase:
            self._log.info("phase", phase=report.phase.value, revision=report.revision)
        self._report = report

    def _begin_fetch(self) -> Progress:
        self._fetching = FetchMeter(self._clock)
        return self._fetching.progress

    def _pause(self, server: Server) -> float:
        """Until the next look: the poll interval, a fifth of it while Triton starts, or a failure's retry if sooner."""
        poll = self._settings.poll_seconds if server.live else self._settings.poll_seconds / 5
        if self._failure is None:
            return poll
        return max(0.01, min(poll, self._failure.retry_at - self._clock()))


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set `stop`; in a thread that may not handle signals (tests) nothing happens."""
    taken = []
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError, RuntimeError):
            loop.add_signal_handler(number, stop.set)
            taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            loop.remove_signal_handler(number)
