"""The operator role: wires the parts together and keeps them running until it is told to stop."""

import asyncio
import random
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import structlog
from prometheus_client import REGISTRY
from prometheus_client.registry import Collector

from conch.api import names
from conch.app import metrics
from conch.app.agent_reports import AgentReports
from conch.app.applier import Applier
from conch.app.autoscaler import Autoscaler
from conch.app.cluster_view import ClusterView
from conch.app.edge import Edge
from conch.app.gateway_reports import GatewayReports
from conch.app.health import Health
from conch.app.policy import installation_policy
from conch.app.reconcile import Reconciler
from conch.app.rollout_metrics import RolloutMetrics
from conch.app.sample_book import SampleBook
from conch.app.scaling_metrics import ScalingMetrics
from conch.kube import resources
from conch.kube.client import KubeClient
from conch.kube.errors import ApiError, ApiUnavailableError
from conch.kube.lease import LeaseStore
from conch.kube.reflector import ObjectKey
from conch.runtime.leadership import DURATION_SECONDS, Leadership
from conch.runtime.supervisor import supervise
from conch.runtime.work_queue import WorkQueue
from conch.settings import OperatorSettings

_EDGE_LIST_SECONDS = 2.0
"""How long after a start of the edge its list has surely been handed over."""

_BURST_SECONDS = 0.1

_GATEWAY_API_SECONDS = 3.0
"""How long a new leader waits to learn whether the cluster has the Gateway API."""

_GATEWAYS_SECONDS = 3.0
"""How long a new leader waits for the gateways' first words."""

_log = structlog.get_logger(__name__)


class Operator:
    """One operator process. A standby does everything but write, so that it can take over at once."""

    def __init__(
        self,
        client: KubeClient,
        settings: OperatorSettings,
        *,
        namespace: str,
        identity: str,
        installation_key: bytes,
        gateway_token: Callable[[], str],
    ) -> None:
        self._client = client
        self._settings = settings
        self._queue: WorkQueue[ObjectKey] = WorkQueue()
        self._leading = False
        policy = installation_policy(settings, namespace=namespace)
        self._view = ClusterView(
            client, on_change=self._seen_changed, namespace=namespace, gateway_ports=policy.gateway_ports
        )
        self._leadership = Leadership(
            LeaseStore(client, namespace=namespace, name=names.LEASE, duration_seconds=DURATION_SECONDS),
            identity=identity,
            clock=monotonic,
        )
        self._reports = AgentReports(
            self._view,
            installation_key=installation_key,
            on_change=self._seen_changed,
            is_used=lambda key: self._autoscaler.is_used(key),
            clock=monotonic,
        )
        self._gateways = GatewayReports(
            self._view.gateways,
            token=gateway_token,
            on_change=self._seen_changed,
            on_wake=self._woken,
            on_arrivals=lambda key, per_second: self._autoscaler.came(key, per_second),
            clock=monotonic,
        )
        self._autoscaler = Autoscaler(
            self._view,
            self._reports,
            self._gateways,
            on_change=self._wanted_changed,
            clock=monotonic,
            now=lambda: datetime.now(UTC),
            cold_start_prior_seconds=settings.model_pods.cold_start_prior_seconds,
        )
        samples = SampleBook()
        applier = Applier(client, self._view, samples, installation_key=installation_key, fence=self._leadership.check)
        self._reconciler = Reconciler(
            client=client,
            view=self._view,
            reports=self._reports,
            gateways=self._gateways,
            autoscaler=self._autoscaler,
            samples=samples,
            applier=applier,
            policy=policy,
            queue=self._queue,
            fence=self._leadership.check,
            now=lambda: datetime.now(UTC),
            instance=identity,
        )
        self._metrics: tuple[Collector, ...] = (
            RolloutMetrics(self._view),
            ScalingMetrics(self._view, self._autoscaler.scaling),
        )
        self._edge_listed = asyncio.Event()
        self._health = Health(port=settings.health_port, ready=self._is_ready)

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with self._health:
            tasks = [asyncio.create_task(reflector.run()) for reflector in self._view.reflectors]
            tasks.append(asyncio.create_task(self._view.gateway_api.run()))
            tasks.append(asyncio.create_task(supervise("edge", self._edge, clock=monotonic)))
            election = asyncio.create_task(self._leadership.run(self._lead))
            stopped = asyncio.create_task(stop.wait())
            done, _ = await asyncio.wait({*tasks, election, stopped}, return_when=asyncio.FIRST_COMPLETED)
            _log.info("stopping")
            # Writing ends and the Lease is given back before anything else is taken down.
            for task in (election, *tasks, stopped):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({task}, timeout=2)
            for task in done - {stopped}:
                task.result()

    def _wanted_changed(self, key: ObjectKey) -> None:
        """Only a leader takes keys from the queue; when it begins to lead, it looks at every object."""
        if self._leading:
            self._queue.add(key, urgent=True)

    def _seen_changed(self, key: ObjectKey) -> None:
        """What the cluster reports comes in bursts (a pod is made, placed, started), and one look is enough for all."""
        if self._leading:
            self._queue.add_after(key, _BURST_SECONDS)

    def _woken(self, key: ObjectKey) -> None:
        """A request is held: nobody waits for the gateways' next report, nor for the autoscaler's next look."""
        if self._leading:
            self._autoscaler.look(key)
            self._wanted_changed(key)

    def _is_ready(self) -> bool:
        return self._edge_listed.is_set() and all(reflector.synced.is_set() for reflector in self._view.reflectors)

    async def _edge(self) -> None:
        metrics.EDGE_RESTARTS.inc()
        edge = asyncio.create_task(Edge(on_event=self._model_deployment_changed).run())
        sweep = asyncio.create_task(self._sweep())
        try:
            await edge
        finally:
            self._edge_listed.clear()
            edge.cancel()
            sweep.cancel()
            await asyncio.gather(edge, sweep, return_exceptions=True)

    def _model_deployment_changed(self, type_: str | None, body: Mapping[str, Any]) -> None:
        key = (body["metadata"]["namespace"], body["metadata"]["name"])
        if type_ == "DELETED":
            self._view.drop_model_deployment(key, body["metadata"]["uid"])
        elif not self._view.put_model_deployment(body):
            return
        metrics.OBJECTS.set(len(self._view.known()))
        self._wanted_changed(key)

    async def _sweep(self) -> None:
        """Forget what was deleted while nobody watched: kopf does not tell what a list of its no longer holds.

        After a start of the edge (the first knows nothing to forget), and now and then: kopf also lists anew, within
        one life, when its watch expired.
        """
        anything_known = bool(self._view.uids())
        pause = _EDGE_LIST_SECONDS
        while True:
            await asyncio.sleep(pause)
            if anything_known and not await self._forget_deleted():
                continue
            self._edge_listed.set()
            anything_known, pause = True, self._settings.resync_interval.total_seconds()

    async def _forget_deleted(self) -> bool:
        """Whether the objects could be listed; those that are not there any more are forgotten then."""
        before = self._view.uids()
        try:
            pages = [page async for page in self._client.pages(resources.MODEL_DEPLOYMENTS, metadata_only=True)]
        except (ApiError, ApiUnavailableError) as error:
            _log.info("objects not listed", error=str(error))
            return False
        alive = frozenset(item["metadata"]["uid"] for page in pages for item in page.get("items") or ())
        for key in self._view.drop_all_but(before, alive):
            self._wanted_changed(key)
        return True

    async def _lead(self) -> None:
        """What only the leader does: ask agents, plan, write, and tell Prometheus of the objects."""
        for collector in self._metrics:
            REGISTRY.register(collector)
        self._leading = True
        metrics.LEADING.set(1)
        try:
            await self._view.synced()
            with suppress(TimeoutError):
                # Without it an object that has routes would be called not ready until they are seen.
                await asyncio.wait_for(self._view.gateway_api.looked.wait(), _GATEWAY_API_SECONDS)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._reports.run())
                group.create_task(self._gateways.run())
                # A plan made before they were asked would call every object's route unknown.
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._gateways.all_asked.wait(), _GATEWAYS_SECONDS)
                group.create_task(self._autoscaler.run())
                group.create_task(self._resync())
                for _ in range(self._settings.workers):
                    group.create_task(self._reconciler.work())
        finally:
            self._leading = False
            metrics.LEADING.set(0)
            for collector in self._metrics:
                REGISTRY.unregister(collector)

    async def _resync(self) -> None:
        """Look at every object now and, without any cause, now and then, spread over the interval."""
        interval = self._settings.resync_interval.total_seconds()
        for key in self._view.known():
            self._queue.add(key)
        while True:
            await asyncio.sleep(interval * random.uniform(0.9, 1.1))  # noqa: S311 - jitter
            for key in self._view.known():
                self._queue.add_after(key, random.uniform(0, interval / 2))  # noqa: S311 - spread
