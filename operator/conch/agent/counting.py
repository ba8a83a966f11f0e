"""What Triton has counted of the model that serves, condensed to what the operator learns from.

Triton's counters only grow, and so does what is told of them within an epoch. Of batches, some executions are left out
that would spoil what is learnt of them (see BatchCounts): those of the first look at a size, and those during a replay
of the golden set, which is a few requests one after the other, and is the model's warm-up, too.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from conch.agent.wanted import Wanted
from conch.api.inference_counts import BATCH_SIZES_MOST, MODELS_MOST, BatchCounts, InferenceCounts, ModelCounts
from conch.triton.batch_sizes import told_size
from conch.triton.client import TritonClient
from conch.triton.config_pbtxt import is_ensemble
from conch.triton.errors import TritonRefusedError, TritonUnavailableError
from conch.triton.instances import instances_at_once
from conch.triton.metrics import MetricsReader, TritonMetrics
from conch.triton.statistics import Statistics

COUNTED_WITHIN_SECONDS: Final = 1.0
"""Triton counts an execution a moment after it has answered."""
ROWS_MOST: Final = 384
"""Batch sizes of all models of a report together: at 90 bytes each, half of what the operator takes as an answer."""
_MEMBERS_MOST: Final = 256
_NANOSECONDS: Final = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """A model that executes, by the configuration that it runs with."""

    name: str
    version: int | None
    max_batch: int
    joins_requests: bool
    instances: int
    decoupled: bool


@dataclass(slots=True)
class _Sum:
    """Of one batch size."""

    executions: int = 0
    nanoseconds: int = 0


class Counting:
    """Of one Triton."""

    def __init__(
        self, triton: TritonClient, metrics: MetricsReader, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._triton = triton
        self._clock = clock
        self._metrics_reader = metrics
        self.metrics = TritonMetrics()
        """As they were last read; empty once Triton does not tell."""
        self._pending = 0
        self.begin()

    def begin(self) -> None:
        """Another epoch: what is counted from now on is of another load, or of other instances."""
        self._epoch = secrets.token_hex(8)
        self._models: tuple[_Model, ...] | None = None
        self._left_out: dict[tuple[str, int], _Sum] = {}
        self._seen: dict[tuple[str, int], _Sum] = {}
        self._told: tuple[ModelCounts, ...] = ()
        self._holds = self._resumes = False
        self._resumes_at = float("inf")

    def hold(self) -> None:
        """What is executed from now on is not the model's work: batches stay as they were last told."""
        self._holds, self._resumes_at = True, float("inf")

    def resume(self, *, executed: bool = True) -> None:
        """What is executed from now on counts again; what was meanwhile does not, whosever it was.

        If anything was `executed` for whoever held, a moment later: it may be counted only then.
        """
        self._resumes_at = self._clock() + (COUNTED_WITHIN_SECONDS if executed else 0.0)

    async def read(self, wanted: Wanted) -> InferenceCounts | None:
        """What is counted of the version that serves; None when Triton does not say. Never raises."""
        name, version = wanted.assignment.name, wanted.assignment.version
        epoch, began = self._epoch, self._clock()
        try:
            if self._models is None:
                models = tuple(await self._executing(name, version))
                if epoch == self._epoch:
                    self._models = models
            counted = await self._triton.statistics(name, version)
            members = {
                model: counted if model.name == name else await self._triton.statistics(model.name, model.version)
                for model in self._models or ()
            }
        except (TritonUnavailableError, TritonRefusedError):
            return None
        await self._read_metrics(name)
        if self._holds and began >= self._resumes_at:
            self._holds, self._resumes = False, True
        if epoch == self._epoch and not self._holds:
            self._told = self._condensed(members)
        return InferenceCounts(
            epoch=self._epoch,
            requests=counted.successes,
            failures=counted.failures,
            queue_seconds=counted.queue_nanoseconds / _NANOSECONDS,
            pending=self._pending,
            models=self._told,
        )

    async def _read_metrics(self, name: str) -> None:
        metrics = await self._metrics_reader.read()
        self.metrics = metrics or TritonMetrics()
        if metrics is not None:
            names = {name, *(model.name for model in self._models or ())}
            self._pending = sum(metrics.pending.get(each, 0) for each in names)

    async def _executing(self, name: str, version: int) -> list[_Model]:
        """The model itself, or whatever an ensemble is made of, through any depth of ensembles."""
        found: list[_Model] = []
        waiting: list[tuple[str, int | None]] = [(name, version)]
        known = {name}
        while waiting and len(known) <= _MEMBERS_MOST:
            name, of_version = waiting.pop()
            config = await self._triton.config(name, of_version)
            if not is_ensemble(config):
                found.append(_described(config, name, of_version))
                continue
            for step in config.ensemble_scheduling.step:
                if step.model_name not in known:
                    known.add(step.model_name)
                    # -1 stands for the highest.
                    waiting.append((step.model_name, step.model_version if step.model_version > 0 else None))
        return found

    def _condensed(self, members: dict[_Model, Statistics]) -> tuple[ModelCounts, ...]:
        seen = {
            (model.name, row.size): _Sum(row.executions, row.nanoseconds)
            for model, counted in members.items()
            for row in counted.batches
        }
        for key, now in seen.items():
            before = self._left_out.get(key)
            if before is None:
                self._left_out[key] = now
            elif self._resumes:
                last = self._seen.get(key, now)
                before.executions += max(0, now.executions - last.executions)
                before.nanoseconds += max(0, now.nanoseconds - last.nanoseconds)
        self._resumes, self._seen = False, {key: _Sum(each.executions, each.nanoseconds) for key, each in seen.items()}
        busiest = sorted(members.items(), key=_computed, reverse=True)[:MODELS_MOST]
        rows_most = min(BATCH_SIZES_MOST, ROWS_MOST // max(1, min(len(members), MODELS_MOST)))
        return tuple(
            ModelCounts(
                name=model.name,
                max_batch=model.max_batch,
                joins_requests=model.joins_requests,
                instances=model.instances,
                decoupled=model.decoupled,
                requests=counted.successes,
                queue_seconds=round(counted.queue_nanoseconds / _NANOSECONDS, 6),
                batches=tuple(self._batches(model, counted, rows_most)),
            )
            for model, counted in sorted(busiest, key=lambda item: item[0].name)
        )

    def _batches(self, model: _Model, counted: Statistics, rows_most: int) -> Iterator[BatchCounts]:
        told: dict[int, _Sum] = {}
        for row in counted.batches:
            left_out = self._left_out[model.name, row.size]
            into = told.setdefault(told_size(row.size, max_batch=model.max_batch, most=rows_most), _Sum())
            into.executions += max(0, row.executions - left_out.executions)
            into.nanoseconds += max(0, row.nanoseconds - left_out.nanoseconds)
        for size, total in sorted(told.items()):
            if total.executions:
                seconds = round(total.nanoseconds / _NANOSECONDS, 6)
                yield BatchCounts(size=size, executions=total.executions, compute_seconds=seconds)


def _described(config: Any, name: str, version: int | None) -> _Model:
    return _Model(
        name=name,
        version=version,
        max_batch=max(1, config.max_batch_size),
        joins_requests=config.HasField("dynamic_batching") or config.HasField("sequence_batching"),
        instances=instances_at_once(config),
        decoupled=bool(config.model_transaction_policy.decoupled),
    )


def _computed(member: tuple[_Model, Statistics]) -> int:
    return sum(row.nanoseconds for row in member[1].batches)
