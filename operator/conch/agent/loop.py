"""The agent's loop: look, decide, act, report."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

from aiohttp.abc import AbstractResolver

from conch.agent.assigned import Assignments
from conch.agent.assignment_file import AssignmentFile
from conch.agent.back_off import failed_again
from conch.agent.changes import Changes
from conch.agent.connections import client_connections
from conch.agent.decide import next_step
from conch.agent.errors import RefusedError, StepError
from conch.agent.preparation import Preparation
from conch.agent.reporting import FetchMeter, agent_log, make_report, phase_of
from conch.agent.settings import AgentSettings
from conch.agent.state import Failure, Server, running_instances
from conch.agent.step_kinds import Idle, Preparing, Refuse, Step
from conch.agent.steps import Steps
from conch.agent.turn import Turns
from conch.agent.volume import Volume
from conch.agent.wanted import Wanted
from conch.api.agent_orders import PinOrder, TurnOrder
from conch.api.agent_report import AgentPhase, AgentReport, ChangeReport
from conch.api.assignment import Assignment
from conch.api.inference_counts import InferenceCounts
from conch.api.reasons import Reason
from conch.store import Progress, without_query
from conch.store.composed import tells_versions
from conch.store.fetch import REFETCH_BYTES_MOST
from conch.triton.client import TritonClient
from conch.triton.metrics import MetricsReader

_FAULTS_OF_THE_MODEL = (Reason.INVALID_MODEL, Reason.MODEL_LOAD_FAILED)


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
        self._steps = Steps(
            settings, volume, triton, metrics, self._begin_fetch, resolver, clock=clock, connections=client_connections
        )
        self._assignments = Assignments(AssignmentFile(settings.assignment_file), Turns(volume, settings.pod_name))
        self._preparation = Preparation(clock)
        self._changes = Changes(volume)
        self._woken = asyncio.Event()
        self._clock = clock
        self._log = agent_log()
        self._failure: Failure | None = None
        self._wanted: Wanted | None = None
        self._fetching = FetchMeter(clock)
        self._report = AgentReport(phase=AgentPhase.STARTING)

    def report(self) -> AgentReport:
        """What the operator is told."""
        report, change = self._report, self._report.change
        if report.phase is AgentPhase.FETCHING:
            report = report.model_copy(update=self._fetching.fields())
        if change is not None and change.phase is AgentPhase.FETCHING:
            report = report.model_copy(update={"change": self._preparation.progress_in(change)})
        return report

    def take_pin(self, order: PinOrder) -> str:
        """The operator says which files a revision has; returns why that is not taken, or nothing."""
        refusal = self._assignments.take_pin(order)
        self._woken.set()
        return refusal

    async def take_turn(self, order: TurnOrder) -> str:
        """The operator says which revision of a change to serve; returns why that is not taken, or nothing."""
        refusal = await self._assignments.take_turn(order)
        self._woken.set()
        return refusal

    async def work(self) -> None:
        """Look, decide, act, for ever."""
        await self._assignments.recall()
        await self._changes.recall()
        keeping = asyncio.ensure_future(self._steps.keep_cache())
        try:
            await self._look_and_act()
        finally:
            keeping.cancel()
            await asyncio.wait({keeping})

    async def _look_and_act(self) -> None:
        while True:
            self._woken.clear()
            self._take_assignment()
            step, server = await self._look()
            if _waits(step):
                await self._rest(self._pause(step, server))
            else:
                await self._act(step)

    async def _look(self) -> tuple[Step, Server]:
        """See what is there, decide, and tell."""
        server = await self._steps.observe(self._wanted)
        disk = await asyncio.to_thread(self._volume.disk)
        if self._wanted is not None:
            await self._changes.see(server, self._wanted)
        step = next_step(
            wanted=self._wanted,
            disk=disk,
            server=server,
            failure=self._failure,
            golden=self._steps.golden,
            resizing=self._steps.resizing,
            now=self._clock(),
            changing=self._preparation.changing(self._steps.trial_golden),
        )
        self._preparation.decided(step)
        if _is_ready(step):
            self._failure = None
        serves = self._wanted is not None and phase_of(step) is AgentPhase.READY
        counts = await self._steps.inference_counts(self._wanted) if self._wanted and serves else None
        self._tell(step, server, counts)
        return step, server

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()

    def _take_assignment(self) -> None:
        """Take what is assigned now; another assignment starts with a clean slate."""
        assigned = self._assignments.look()
        if assigned is None:
            return
        if self._preparation.follow(assigned):
            self._steps.forget_trial()
        current, given = self._wanted.assignment if self._wanted else None, assigned.target
        if given != current:
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
                change=assigned.change_id,
            )

    async def _act(self, step: Step) -> None:
        """Carry out a step, unless the assignment changes meanwhile: then what it does is not wanted any more."""
        started = self._clock()
        task = asyncio.ensure_future(self._steps.run(step))
        try:
            while not task.done():
                await self._wait_for(task)
                if task.done():
                    break
                if self._assignment_changed(step):
                    task.cancel()
                elif isinstance(step, Preparing):
                    # The pod serves meanwhile, and whatever that asks for comes first.
                    self._take_assignment()
                    if not isinstance((await self._look())[0], Preparing):
                        task.cancel()
                elif phase_of(step) is AgentPhase.READY and self._wanted:
                    # It serves meanwhile, for minutes perhaps, and what it counts must not look old.
                    counts = await self._steps.inference_counts(self._wanted)
                    self._report = self._report.model_copy(update={"inference": counts})
            with contextlib.suppress(asyncio.CancelledError):
                await task
        except RefusedError as error:
            self._preparation.refuse(str(error))
        except StepError as error:
            self._failed(step, error)
        except Exception as error:
            self._log.exception("step_crashed", step=_name_of(step))
            message = f"the agent failed in an unexpected way: {error!r}"
            self._failed(step, StepError(Reason.MODEL_LOAD_FAILED, message))
        else:
            if not task.cancelled():
                self._done(step)
            self._log.info(
                "step",
                step=_name_of(step),
                preparing=isinstance(step, Preparing),
                cancelled=task.cancelled(),
                seconds=round(self._clock() - started, 3),
            )
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    async def _wait_for(self, task: asyncio.Task[None]) -> None:
        """Until it is done, or it is time to look whether it is still wanted."""
        waking = asyncio.ensure_future(self._woken.wait())
        try:
            await asyncio.wait({task, waking}, timeout=self._settings.poll_seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waking.cancel()
            self._woken.clear()

    def _assignment_changed(self, step: Step) -> bool:
        """A pin alone stops nothing: most likely it is of what is on its way. Nor does a number of instances alone."""
        assigned = self._assignments.look()
        if assigned is None or self._wanted is None:
            return False
        if _without_details(assigned.target) != _without_details(self._wanted.assignment):
            return True
        return isinstance(step, Preparing) and not self._preparation.is_of(assigned, step.step)

    def _done(self, step: Step) -> None:
        if isinstance(step, Preparing):
            self._preparation.done(step.step)
        elif self._failure:
            is_over = self._failure.stage is phase_of(step)
            self._failure = None if is_over else replace(self._failure, refetch=False)

    def _failed(self, step: Step, error: StepError) -> None:
        changing = self._preparation.changing(self._steps.trial_golden)
        if isinstance(step, Preparing):
            repairable = changing is not None and self._may_be_repaired(changing.other, self._wanted, error.reason)
            self._preparation.failed(step.step, error, may_be_repaired=repairable)
            return
        before, other = self._failure, changing.other if changing else None
        self._failure = failed_again(
            before,
            stage=phase_of(step),
            reason=error.reason,
            message=error.message,
            now=self._clock(),
            refetch=self._wanted is not None and self._may_be_repaired(self._wanted, other, error.reason),
        )
        if before is None or (before.reason, before.message) != (error.reason, error.message):
            self._log.warning("failed", step=type(step).__name__, reason=error.reason.value, message=error.message)

    def _may_be_repaired(self, wanted: Wanted, other: Wanted | None, reason: Reason) -> bool:
        """Whether other files may lie at the source by now that would do better, and nobody needs those that are here.

        `other` is the change's other revision, which may have the same source.
        """
        if wanted.assignment.is_declared or reason not in _FAULTS_OF_THE_MODEL:
            return False
        record = self._volume.record(wanted.fetch_key)
        if record is None or (other is not None and other.fetch_key == wanted.fetch_key):
            return False
        parts = [model.name for model in wanted.models]
        told = tells_versions(record.resolved, parts) if len(parts) > 1 else bool(record.resolved)
        return told or record.is_at_its_source or record.bytes <= REFETCH_BYTES_MOST

    def _tell(self, step: Step, server: Server, counts: InferenceCounts | None) -> None:
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
            changed=self._changes.changed,
        )
        report = report.model_copy(update={"change": self._change_report()})
        problem = self._assignments.problem
        if problem and report.phase is not AgentPhase.READY:
            report = report.model_copy(
                update={"phase": AgentPhase.FAILED, "reason": Reason.INVALID_SPEC, "message": problem[:2048]}
            )
        if report.phase is not self._report.phase:
            self._log.info("phase", phase=report.phase.value, revision=report.revision)
        self._report = report

    def _change_report(self) -> ChangeReport | None:
        changing = self._preparation.changing(self._steps.trial_golden)
        record = self._volume.record(changing.other.fetch_key) if changing else None
        return self._preparation.report(self._steps.trial_golden, record)

    def _begin_fetch(self, wanted: Wanted) -> Progress:
        meter = FetchMeter(self._clock)
        if wanted == self._wanted:
            self._fetching = meter
        else:
            self._preparation.meter = meter
        return meter.progress

    def _pause(self, step: Step, server: Server) -> float:
        """Until the next look: the poll interval, a fifth of it while Triton starts, loads or unloads, or a failure's
        retry if sooner."""
        is_soon = not server.live or phase_of(step) is AgentPhase.LOADING
        poll = self._settings.poll_seconds / 5 if is_soon else self._settings.poll_seconds
        due = [self._failure.retry_at if self._failure else None, self._preparation.retry_at]
        return max(0.01, min([poll, *(at - self._clock() for at in due if at is not None)]))


def _waits(step: Step) -> bool:
    """Whether there is nothing to do but to look again."""
    return isinstance(step.step if isinstance(step, Preparing) else step, Idle | Refuse)


def _is_ready(step: Step) -> bool:
    return phase_of(step) is AgentPhase.READY and isinstance(step, Idle | Preparing)


def _name_of(step: Step) -> str:
    return type(step.step if isinstance(step, Preparing) else step).__name__


def _without_details(assignment: Assignment) -> Assignment:
    return assignment.model_copy(update={"pin": None, "instances": None})
