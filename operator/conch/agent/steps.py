"""The hands of the agent: each step of decide.py carried out, with errors in the API's words."""

import asyncio
from collections.abc import Callable, Sequence
from typing import assert_never

from aiohttp.abc import AbstractResolver

from conch.agent.counting import Counting
from conch.agent.errors import ServerEndedError, StepError
from conch.agent.fetcher import Fetcher
from conch.agent.golden_check import GoldenCheck
from conch.agent.leaving import Leaving, LeavingTimes
from conch.agent.load_failure import load_failure
from conch.agent.patience import Patience
from conch.agent.reporting import agent_log
from conch.agent.repository import Repository
from conch.agent.resizing import Resizer
from conch.agent.server_state import server_state
from conch.agent.settings import AgentSettings
from conch.agent.state import Golden, Resizing, Server, serves
from conch.agent.step_kinds import (
    CleanUp,
    Fetch,
    Idle,
    LayOut,
    Load,
    MakeWay,
    Preparing,
    PreparingStep,
    Refuse,
    Remove,
    Replay,
    Resize,
    Restore,
    Step,
    Unload,
)
from conch.agent.volume import Volume
from conch.agent.wanted import Wanted
from conch.api.agent_report import CacheReport, GoldenOutcome
from conch.api.inference_counts import InferenceCounts
from conch.api.reasons import Reason
from conch.store import Progress, StoreError
from conch.triton.client import TritonClient
from conch.triton.errors import (
    InvalidModelError,
    ModelNotAllowedError,
    TritonRefusedError,
    TritonUnavailableError,
)
from conch.triton.metrics import MetricsReader, TritonMetrics


class Steps:
    """Carries out steps on one volume and one Triton."""

    def __init__(
        self,
        settings: AgentSettings,
        volume: Volume,
        triton: TritonClient,
        metrics: MetricsReader,
        progress: Callable[[Wanted], Progress],
        resolver: AbstractResolver | None = None,
        *,
        clock: Callable[[], float],
        patience: Patience | None = None,
        connections: Callable[[], int] = lambda: 0,
    ) -> None:
        self._settings = settings
        self._triton = triton
        self._volume = volume
        self._repository = Repository(settings, volume)
        self._patience = patience or Patience()
        self._fetcher = Fetcher(settings, volume, progress, resolver)
        self._golden = GoldenCheck(volume, self._fetcher, triton, clock)
        self._counting = Counting(triton, metrics)
        timeout_seconds = settings.load_timeout_seconds
        self._resizer = Resizer(volume, self._fetcher, triton, clock, timeout_seconds=timeout_seconds)
        self._trial_golden = GoldenCheck(volume, self._fetcher, triton, clock)
        self._trial_resizer = Resizer(volume, self._fetcher, triton, clock, timeout_seconds=timeout_seconds)
        # The gateways have been told before the pod was: nothing new comes.
        self._emptying = Leaving(
            connections=connections,
            is_live=lambda: triton.live(),
            times=LeavingTimes(propagation_seconds=0, drain_seconds=settings.drain_seconds),
            clock=clock,
        )
        self._log = agent_log()

    @property
    def golden(self) -> Golden:
        """What the golden set of the model that is loaded has shown."""
        return self._golden.known

    @property
    def trial_golden(self) -> Golden:
        """What the golden set of the model that is tried under a name of its own has shown."""
        return self._trial_golden.known

    def forget_trial(self) -> None:
        """Another revision is to be tried."""
        self._trial_golden.forget()

    @property
    def resizing(self) -> Resizing:
        """What has come of giving the model that is loaded its number of instances."""
        return self._resizer.known

    @property
    def metrics(self) -> TritonMetrics:
        """Triton's metrics, as they were read with the last counts."""
        return self._counting.metrics

    def assign_instances(self) -> None:
        """Another number of instances is assigned: what was refused before says nothing of it."""
        self._resizer.forget()

    async def observe(self, wanted: Wanted | None) -> Server:
        """What Triton says now; never raises."""
        return await server_state(self._triton, examined=wanted is not None)

    async def inference_counts(self, wanted: Wanted) -> InferenceCounts | None:
        """What Triton has counted of the version that serves; None when it does not say. Never raises.

        Only a load begins the counters anew, and only this agent loads: so the epoch changes with its loads.
        """
        return await self._counting.read(wanted)

    def cache_report(self, wanted: Wanted) -> CacheReport | None:
        """How the assigned model was come by where there is a model cache."""
        return self._fetcher.cache_report(wanted)

    async def keep_cache(self) -> None:
        """Keep others from taking away what is in use of the model cache, until cancelled."""
        await self._fetcher.keep_cache()

    async def run(self, step: Step) -> None:
        """Carry out one step; raises StepError."""
        try:
            match step:
                case Fetch(wanted=wanted, kept=kept):
                    await self._fetcher.fetch(wanted, kept)
                case LayOut(wanted=wanted) | Restore(wanted=wanted):
                    await self._patience.wait_for(
                        wanted, lambda checkpoint: self._repository.lay_out(wanted, checkpoint)
                    )
                case Load(wanted=wanted):
                    await self._load(wanted)
                case Unload(name=name):
                    await self._triton.unload(name)
                case MakeWay(names=names):
                    await self._make_way(names)
                case Replay(wanted=wanted):
                    await self._replay(wanted)
                case Resize(wanted=wanted):
                    await self._resize(wanted)
                case CleanUp(wanted=wanted, kept=kept, kept_layout=kept_layout):
                    await asyncio.to_thread(self._fetcher.clean_up, wanted, kept, kept_layout)
                case Preparing(step=preparation):
                    await self._prepare(preparation)
                case Idle():
                    pass
                case _:
                    assert_never(step)
        except StoreError as error:
            raise StepError(error.reason, error.message) from error
        except InvalidModelError as error:
            raise StepError(Reason.INVALID_MODEL, str(error)) from error
        except ModelNotAllowedError as error:
            raise StepError(Reason.MODEL_NOT_ALLOWED, str(error)) from error
        except TritonRefusedError as error:
            raise StepError(*load_failure(str(error), self._settings.triton_image)) from error
        except TritonUnavailableError:
            pass  # the next observation says so, and what to do follows from that
        except OSError as error:
            raise StepError(
                Reason.SOURCE_UNREACHABLE,
                f"the model volume cannot be used: {error.strerror or error}; it is tried again",
            ) from error

    async def _prepare(self, step: PreparingStep) -> None:
        match step:
            case Load(wanted=wanted):
                await self._load(wanted)
            case Replay(wanted=wanted):
                await self._trial_golden.run(wanted)
                if self._trial_golden.known.report is None and not await self._triton.live():
                    raise _ended("answered its golden set")
            case Refuse():
                pass
            case Remove(wanted=wanted):
                await asyncio.to_thread(self._volume.remove_layout, wanted.name)
            case _:
                await self.run(step)

    async def _make_way(self, names: Sequence[str]) -> None:
        self._log.info("makes_way", models=names, why=await self._emptying.wait())
        for name in names:
            await self._triton.unload(name)

    async def _replay(self, wanted: Wanted) -> None:
        self._counting.hold()
        try:
            await self._golden.run(wanted)
        finally:
            report = self._golden.known.report
            self._counting.resume(executed=report is None or report.outcome is not GoldenOutcome.ABSENT)

    async def _resize(self, wanted: Wanted) -> None:
        # What is executed meanwhile is of neither number of instances.
        self._counting.begin()
        self._counting.hold()
        try:
            await self._resizer.run(wanted)
        finally:
            self._counting.begin()

    async def _load(self, wanted: Wanted) -> None:
        await self._patience.wait_for(wanted, lambda _checkpoint: self._fetcher.check_still_verified(wanted))
        models = await self._patience.wait_for(wanted, lambda _checkpoint: self._repository.checked_models(wanted))
        name, version = wanted.name, wanted.assignment.version
        golden, resizer = self._golden, self._resizer
        if wanted.is_trial:
            golden, resizer = self._trial_golden, self._trial_resizer
        else:
            self._counting.begin()
        golden.forget()
        try:
            for member in models[:-1]:
                await self._triton.load(member, timeout_seconds=self._settings.load_timeout_seconds)
            await resizer.load(wanted)
        except TritonUnavailableError as error:
            if await self._triton.live():
                raise StepError(Reason.MODEL_LOAD_FAILED, str(error)) from error
            if wanted.is_trial:
                raise _ended("was loaded") from error
            raise
        server = await self.observe(wanted)
        if server.live and not serves(server, wanted):
            # "Loaded" is Triton's answer also when it did nothing, or when the listed version does not exist.
            state = next((f"is {v.state}" for v in server.versions if v.name == name), "is not in its index")
            raise StepError(
                Reason.MODEL_LOAD_FAILED,
                f"Triton took the load of {name!r}, but version {version} does not serve: it {state}",
            )


def _ended(doing: str) -> ServerEndedError:
    return ServerEndedError(
        Reason.MODEL_LOAD_FAILED,
        f"Triton ended while the new version {doing} under a name of its own, beside the model that serves; that is "
        "loaded again. Look at Triton's log of its last life: most often two versions at once need too much memory",
    )
