"""The sidecar's life: Envoy's bootstrap first, because Envoy waits for it; then everything else until SIGTERM."""

import asyncio
import signal
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from typing import Any, Final

import aiohttp
import structlog
from prometheus_client import CollectorRegistry

from conch.api.gateway_report import GatewayReport
from conch.gateway import hold_server, open_files, report_server, shadow_server
from conch.gateway.api_keys import ApiKeys
from conch.gateway.certificate import Certificate
from conch.gateway.envoy.admin import EnvoyAdmin, EnvoyAwayError
from conch.gateway.envoy.admission import Admission
from conch.gateway.envoy.bootstrap import BootstrapOptions, render_bootstrap
from conch.gateway.envoy.cluster import ServerPorts
from conch.gateway.envoy.delivery import FileDelivery
from conch.gateway.envoy.files import ResourceFiles
from conch.gateway.envoy.listener import AccessLog, ListenerOptions
from conch.gateway.envoy.render import Renderer, RenderOptions
from conch.gateway.epoch import Epoch
from conch.gateway.hold import Hold
from conch.gateway.leaving import Leaving, LeavingTimes, is_ending
from conch.gateway.report_server import Told
from conch.gateway.routed import ObjectKey
from conch.gateway.settings import GatewaySettings
from conch.gateway.shadow import Shadow
from conch.gateway.shadow_senders import Senders
from conch.gateway.sync import Synchroniser
from conch.gateway.traffic import Sent, TrafficReader, make_report
from conch.gateway.wakes import Wakes
from conch.gateway.watch import Watch
from conch.kube import resources
from conch.kube.client import KubeClient
from conch.kube.errors import ApiError, ApiUnavailableError

_POD_SECONDS: Final = 20.0
"""How long the API server may take to say whether this pod is being deleted."""
_POD_RETRY_SECONDS: Final = 1.0

_log = structlog.get_logger(__name__)


class Gateway:
    """One sidecar with all its parts."""

    def __init__(
        self,
        settings: GatewaySettings,
        client: KubeClient,
        session: aiohttp.ClientSession,
        *,
        ports: ServerPorts | None = None,
    ) -> None:
        """`session` is for Envoy's administration; `ports` are where servers listen."""
        self._settings = settings
        self._client = client
        self._files = ResourceFiles(settings.dynamic_folder)
        self._admin = EnvoyAdmin(session, settings.admin_port)
        self._epoch = Epoch(self._admin, settings.config_folder / "epoch", clock=time.time)
        admission = Admission(api_keys=settings.api_keys_folder is not None, authorization=settings.authorization)
        self._traffic = TrafficReader(self._admin, admission=admission)
        self._watch = Watch(client, own_address=settings.address, on_change=self._watch_changed)
        self._is_listed_once = False
        self._registry = CollectorRegistry()
        """Metrics of what this gateway is configured with."""
        listener = ListenerOptions(
            dynamic_folder=settings.dynamic_folder,
            bind_address=settings.bind_address,
            access_log=AccessLog.JSON if settings.access_log else AccessLog.OFF,
            header_kib_most=settings.header_kib_most,
            tls=settings.tls_folder is not None,
            admission=admission,
        )
        self._certificate = (
            Certificate(
                settings.tls_folder,
                dynamic_folder=settings.dynamic_folder,
                admin=self._admin,
                registry=self._registry,
            )
            if settings.tls_folder
            else None
        )
        self._api_keys = (
            ApiKeys(settings.api_keys_folder, registry=self._registry, on_change=self._watch_changed)
            if settings.api_keys_folder
            else None
        )
        self._sync = Synchroniser(
            Renderer(RenderOptions(listener=listener, ports=ports or ServerPorts())),
            FileDelivery(self._files, self._admin, run=uuid.uuid4().hex[:12], clock=time.monotonic),
            clock=time.monotonic,
            on_change=self._route_changed,
        )
        self._hold = Hold(
            snapshot=self._watch.snapshot,
            routes=self._sync,
            sent=self._sent,
            clock=time.monotonic,
            on_held=lambda: self._wakes.changed(),
        )
        self._shadow = Shadow(
            snapshot=self._watch.snapshot, senders=Senders(ports or ServerPorts()), clock=time.monotonic
        )
        self._wakes = Wakes(self._hold.held, clock=time.monotonic)
        self._leaving = Leaving(
            self._admin,
            is_deleted=self._is_deleted,
            listed=lambda: self._watch.listed if self._is_listed_once else None,
            times=LeavingTimes(
                unlisted_seconds=settings.unlisted_seconds,
                drain_seconds=settings.drain_seconds,
                idle_seconds=settings.idle_seconds,
            ),
            clock=time.monotonic,
        )

    def prepare(self) -> None:
        """Write what Envoy needs to start. What an earlier life of this sidecar has routed stays."""
        options = BootstrapOptions(
            gateway=self._settings.pod,
            dynamic_folder=self._settings.dynamic_folder,
            admin_port=self._settings.admin_port,
            hold_port=self._settings.hold_port,
            memory_bytes=self._settings.envoy_memory_bytes,
            authorization=self._settings.authorization,
        )
        self._files.prepare()
        if self._certificate:
            self._certificate.prepare()
        fresh = self._settings.bootstrap_file.with_suffix(".new")
        fresh.write_text(render_bootstrap(options))
        fresh.rename(self._settings.bootstrap_file)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; raises what ended a part, since a part that is missing is a gateway that lies."""
        async with self._servers():
            parts: list[Coroutine[Any, Any, object]] = [
                *(self._watch.run(), self._first_snapshot(), self._sync.run(), self._hold.run(), self._serve_hold()),
            ]
            if self._certificate:
                parts.append(self._certificate.run())
            if self._api_keys:
                parts.append(self._api_keys.run())
            tasks = [asyncio.ensure_future(part) for part in parts]
            stopped = asyncio.ensure_future(stop.wait())
            try:
                pending = {stopped, *tasks}
                while stopped in pending:
                    done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                    for task in done - {stopped}:
                        task.result()
            finally:
                for task in (*tasks, stopped):
                    task.cancel()
                await asyncio.gather(*tasks, stopped, return_exceptions=True)

    @asynccontextmanager
    async def _servers(self) -> AsyncIterator[None]:
        told = Told(
            token_file=self._settings.token_file,
            report=self.report,
            not_ready=self._not_ready,
            wakes=self._wakes,
            leaving=self._leaving,
            registry=self._registry,
        )
        report = await report_server.serve(told, host=self._settings.bind_address, port=self._settings.report_port)
        try:
            yield
        finally:
            await report.cleanup()

    async def _serve_hold(self) -> None:
        """Nobody is refused for an object that is only not known yet: until then Envoy finds nobody, and asks again."""
        await self._watch.synced()
        application = hold_server.make_application(self._hold)
        shadow_server.add_routes(application, self._shadow)
        hold = await hold_server.serve(application, self._settings.hold_port)
        try:
            await asyncio.Event().wait()
        finally:
            await hold.cleanup()
            await self._shadow.close()

    async def _first_snapshot(self) -> None:
        """Nothing is routed before everything is known: half of it would take the other half's listeners down."""
        await self._watch.synced()
        self._is_listed_once = True
        self._watch_changed()

    def _watch_changed(self) -> None:
        if self._is_listed_once:
            clients = self._api_keys.clients.known if self._api_keys else None
            self._sync.want(replace(self._watch.snapshot(), clients=clients))
            self._hold.changed()
            self._shadow.forget_gone()

    def _route_changed(self, _key: ObjectKey) -> None:
        self._hold.changed()

    async def _sent(self, keys: Iterable[ObjectKey]) -> Mapping[ObjectKey, Sent]:
        objects = self._watch.snapshot().objects
        return await self._traffic.sent(objects[key] for key in keys if key in objects)

    async def report(self) -> GatewayReport:
        """What the operator is told; raises EnvoyAwayError."""
        return await make_report(
            gateway=self._settings.pod,
            epoch=await self._epoch.now(),
            version=version("conch"),
            leaving=self._leaving.has_begun,
            counts=self._traffic.counts,
            snapshot=self._watch.snapshot(),
            state=self._sync.state,
            hold=self._hold,
            shadows=self._shadow.told,
        )

    async def _not_ready(self) -> str:
        if self._leaving.has_begun:
            return "this gateway is leaving"
        if not self._sync.synced.is_set():
            return "Envoy has not acknowledged what is to be routed yet"
        if self._api_keys and (problem := self._api_keys.not_ready()):
            return problem
        try:
            if self._certificate and (problem := await self._certificate.not_ready()):
                return problem
        except EnvoyAwayError as error:
            return f"Envoy does not answer: {error}"
        return "" if await self._admin.is_ready() else "Envoy is not live"

    async def _is_deleted(self) -> bool:
        """Whether the API server says that this pod is about to end; no if it does not answer in time."""
        end = time.monotonic() + _POD_SECONDS
        while time.monotonic() < end:
            try:
                return is_ending(await self._client.get(resources.PODS, self._settings.namespace, self._settings.pod))
            except (ApiError, ApiUnavailableError) as error:
                _log.warning("not known whether this pod is being deleted", error=str(error))
            await asyncio.sleep(_POD_RETRY_SECONDS)
        return False


async def run(settings: GatewaySettings, *, ports: ServerPorts | None = None) -> None:
    """Serve until SIGTERM or SIGINT; raises only what a restart of the container may cure."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # A thread that is not the main one (tests) may not handle signals.
        with suppress(ValueError, RuntimeError):
            loop.add_signal_handler(number, stop.set)
    open_files.raise_limit()
    client = await KubeClient.connect()
    try:
        async with aiohttp.ClientSession(trust_env=False) as session:
            gateway = Gateway(settings, client, session, ports=ports)
            gateway.prepare()
            await gateway.run(stop)
    finally:
        await client.close()
