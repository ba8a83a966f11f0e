"""The hands of the agent: each step of decide.py carried out, with errors in the API's words."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, assert_never

from aiohttp.abc import AbstractResolver

from conch.agent.counting import Counting
from conch.agent.decide import (
    CleanUp,
    Fetch,
    Golden,
    Idle,
    LayOut,
    Load,
    LoadedVersion,
    Replay,
    Resize,
    Resizing,
    Server,
    Step,
    Unload,
    Wanted,
    serves,
)
from conch.agent.errors import StepError
from conch.agent.fetcher import Fetcher
from conch.agent.golden_check import GoldenCheck
from conch.agent.resizing import Resizer
from conch.agent.settings import AgentSettings
from conch.agent.volume import Volume
from conch.api.assignment import Assignment, InferenceCounts
from conch.api.reasons import Reason
from conch.store import Progress, StoreError, in_thread, without_query
from conch.triton.allowed import settle_backend
from conch.triton.client import TritonClient
from conch.triton.config_pbtxt import (
    format_config,
    is_ensemble,
    loaded_layout,
    parse_config,
    served_config,
)
from conch.triton.errors import InvalidModelError, ModelNotAllowedError, TritonRefusedError, TritonUnavailableError
from conch.triton.instances import instance_groups
from conch.triton.layout import CONFIG, DEFAULT_ONNX, Found, find_model, make_layout, plan_layout, read_tree
from conch.triton.metrics import MetricsReader, TritonMetrics
from conch.triton.onnx_config import onnx_config
from conch.triton.onnx_signature import read_signature

_OUT_OF_GPU_MEMORY: Final = re.compile(
    r"CUDA(?: error:)? out of memory|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY|CUDA failure 2\b"
    r"|OutOfMemory|Failed to allocate memory for requested buffer|unable to allocate [a-z ]*GPU memory",
    re.IGNORECASE,
)
"""What CUDA, onnxruntime, TensorRT and PyTorch say when the GPU is full; Triton hands it on."""
CONFIG_BYTES_MOST = 4 << 20
_INTERESTING = ("READY", "LOADING", "UNLOADING")


class Steps:
    """Carries out steps on one volume and one Triton."""

    def __init__(
        self,
        settings: AgentSettings,
        volume: Volume,
        triton: TritonClient,
        metrics: MetricsReader,
        progress: Callable[[], Progress],
        resolver: AbstractResolver | None = None,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._volume = volume
        self._triton = triton
        self._fetcher = Fetcher(settings, volume, progress, resolver)
        self._golden = GoldenCheck(volume, self._fetcher, triton, clock)
        self._counting = Counting(triton, metrics)
        self._resizer = Resizer(volume, self._fetcher, triton, clock, timeout_seconds=settings.load_timeout_seconds)

    @property
    def golden(self) -> Golden:
        """What the golden set of the model that is loaded has shown."""
        return self._golden.known

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
        try:
            entries = await self._triton.index()
            versions = [
                LoadedVersion(name=e.name, version=e.version, state=e.state) for e in entries if e.state in _INTERESTING
            ]
            if wanted:
                versions = [await self._examined(v) if v.name == wanted.assignment.name else v for v in versions]
            return Server(live=True, versions=tuple(versions))
        except (TritonUnavailableError, TritonRefusedError):
            return Server()

    async def _examined(self, entry: LoadedVersion) -> LoadedVersion:
        if entry.state != "READY":
            return entry
        version = int(entry.version)
        ready = await self._triton.version_ready(entry.name, version)
        config = await self._triton.config(entry.name, version)
        return LoadedVersion(
            name=entry.name,
            version=entry.version,
            state=entry.state,
            ready=ready,
            layout=loaded_layout(config),
            instances=instance_groups(config),
        )

    async def inference_counts(self, wanted: Wanted) -> InferenceCounts | None:
        """What Triton has counted of the version that serves; None when it does not say. Never raises.

        Only a load begins the counters anew, and only this agent loads: so the epoch changes with its loads.
        """
        return await self._counting.read(wanted)

    async def run(self, step: Step) -> None:
        """Carry out one step; raises StepError."""
        try:
            match step:
                case Fetch(wanted=wanted):
                    await self._fetcher.fetch(wanted)
                case LayOut(wanted=wanted):
                    await in_thread(lambda _checkpoint: self._lay_out(wanted))
                case Load(wanted=wanted):
                    await self._load(wanted)
                case Unload(name=name):
                    await self._triton.unload(name)
                case Replay(wanted=wanted):
                    await self._replay(wanted)
                case Resize(wanted=wanted):
                    await self._resize(wanted)
                case CleanUp(wanted=wanted):
                    await asyncio.to_thread(
                        self._volume.clean_up, fetched=wanted.fetch_key, model=wanted.assignment.name
                    )
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
            raise StepError(*_load_failure(str(error))) from error
        except TritonUnavailableError:
            pass  # the next observation says so, and what to do follows from that
        except OSError as error:
            raise StepError(
                Reason.SOURCE_UNREACHABLE,
                f"the model volume cannot be used: {error.strerror or error}; it is tried again",
            ) from error

    def _lay_out(self, wanted: Wanted) -> None:
        assignment = wanted.assignment
        fetched = self._volume.tree(wanted.fetch_key)
        found = find_model(read_tree(fetched), name=assignment.name, format=assignment.format)
        root = fetched / found.root
        author = _author_config(found, root, assignment)
        layout = plan_layout(found, version=assignment.version, is_ensemble=is_ensemble(author))
        config = served_config(
            author, assignment.config, name=assignment.name, version=assignment.version, layout=wanted.layout_key
        )
        settle_backend(config, layout.links, assignment.source_policy)
        with self._volume.scratch() as folder:
            model = folder / assignment.name
            make_layout(layout, fetched, model)
            (model / CONFIG).write_text(format_config(config))
            self._volume.keep_layout(wanted.layout_key, model, assignment.name)

    def _check_backend(self, assignment: Assignment) -> None:
        """What lies on the volume was allowed when it was laid out; it is loaded only if it is allowed now."""
        model = self._volume.repository / assignment.name
        config = parse_config((model / CONFIG).read_text())
        settle_backend(config, read_tree(model).files - {CONFIG}, assignment.source_policy)

    async def _replay(self, wanted: Wanted) -> None:
        self._counting.hold()
        try:
            await self._golden.run(wanted)
        finally:
            self._counting.resume()

    async def _resize(self, wanted: Wanted) -> None:
        # What is executed meanwhile is of neither number of instances.
        self._counting.begin()
        self._counting.hold()
        try:
            await self._resizer.run(wanted)
        finally:
            self._counting.begin()

    async def _load(self, wanted: Wanted) -> None:
        if not await in_thread(lambda _checkpoint: self._fetcher.is_still_verified(wanted)):
            raise StepError(
                Reason.SOURCE_CHANGED,
                f"{without_query(wanted.assignment.source.uri)}: the files on the claim were written to after they "
                "were verified; they are verified anew",
            )
        await in_thread(lambda _checkpoint: self._check_backend(wanted.assignment))
        name, version = wanted.assignment.name, wanted.assignment.version
        self._golden.forget()
        self._counting.begin()
        try:
            await self._resizer.load(wanted)
        except TritonUnavailableError as error:
            if await self._triton.live():
                raise StepError(Reason.MODEL_LOAD_FAILED, str(error)) from error
            raise
        server = await self.observe(wanted)
        if server.live and not serves(server, wanted):
            # "Loaded" is Triton's answer also when it did nothing, or when the listed version does not exist.
            state = next((f"is {v.state}" for v in server.versions if v.name == name), "is not in its index")
            raise StepError(
                Reason.MODEL_LOAD_FAILED,
                f"Triton took the load of {name!r}, but version {version} does not serve: it {state}",
            )


def _load_failure(said: str) -> tuple[Reason, str]:
    """Why Triton refused, in its own words; being out of GPU memory has its own remedy."""
    if _OUT_OF_GPU_MEMORY.search(said):
        return (
            Reason.OUT_OF_GPU_MEMORY,
            f"{said.rstrip('. ')}. Use a GPU with more memory (gpu.products, gpu.resource), fewer instances, or a "
            "smaller model",
        )
    return Reason.MODEL_LOAD_FAILED, said


def _author_config(found: Found, root: Path, assignment: Assignment) -> object:
    """The configuration the model came with, or one derived from its graph, or an empty one that Triton completes."""
    if found.has_config:
        with (root / CONFIG).open("rb") as stream:
            content = stream.read(CONFIG_BYTES_MOST + 1)
        if len(content) > CONFIG_BYTES_MOST:
            raise InvalidModelError(f"the model's {CONFIG} has more than {CONFIG_BYTES_MOST} bytes; make it smaller")
        try:
            return parse_config(content.decode())
        except UnicodeDecodeError as error:
            raise InvalidModelError(f"the model's {CONFIG} is not UTF-8 text") from error
    graph = found.onnx or f"{assignment.version}/{DEFAULT_ONNX}"
    if graph not in found.tree.files:
        return parse_config("")
    return onnx_config(
        read_signature(root / graph),
        filename=Path(graph).name,
        max_batch_size=assignment.config.max_batch_size,
    )
