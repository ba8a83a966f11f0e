"""What the gateways say: one question per gateway and second, and one open stream each for what cannot wait.

A gateway that does not answer keeps its last word, and counts as not heard after ten seconds.
"""

import asyncio
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

import aiohttp
import structlog
from pydantic import ValidationError

from conch.api import gateway_pod
from conch.api.gateway_report import COUNTED_AT_HEADER, REPORT_PATH, WAKES_PATH, GatewayReport, ObjectTraffic, Wake
from conch.app import metrics
from conch.core.observed import ObservedGateway
from conch.kube.reflector import ObjectKey

_POLL_SECONDS: Final = 1.0
_UNHEARD_SECONDS: Final = 10.0
_RETRY_SECONDS: Final = 1.0
_ANSWER_LIMIT_BYTES: Final = 64 * 1024 * 1024
_LINE_LIMIT_BYTES: Final = 64 * 1024
_TIMEOUT: Final = aiohttp.ClientTimeout(total=5, sock_connect=1)
_STREAM_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=2, sock_read=15)

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Heard:
    report: GatewayReport
    at: float
    body: bytes
    """As it came: of a gateway without traffic, most repeat the one before."""
    counted_at: float
    """When it was counted: by the gateway's clock, on which this process's clock is laid once per epoch."""
    offset: float | None
    """Of that: our clock less the gateway's. None of one that does not tell."""
    silence_told: bool = False


class GatewayReports:
    """The last report of every gateway.

    `gateways` lists the pods as they are now. `on_change` is called with an object when a gateway takes over, refuses
    or finishes something for it, `on_wake` when a request is held for it, `on_arrivals` with what comes per second.
    """

    def __init__(
        self,
        gateways: Callable[[], Iterable[ObservedGateway]],
        *,
        token: Callable[[], str],
        on_change: Callable[[ObjectKey], None],
        on_wake: Callable[[ObjectKey], None],
        on_arrivals: Callable[[ObjectKey, float], None],
        clock: Callable[[], float],
    ) -> None:
        self._gateways = gateways
        self._token = token
        self._on_change = on_change
        self._on_wake = on_wake
        self._on_arrivals = on_arrivals
        self._clock = clock
        self._heard: dict[str, _Heard] = {}
        self._asked: set[str] = set()
        self.all_asked = asyncio.Event()
        """Set once every gateway that there was at the beginning was asked, whatever it answered."""

    def seen(self, key: ObjectKey) -> tuple[ObservedGateway, ...]:
        """Every gateway, with what it says of one object."""
        name = "/".join(key)
        return tuple(self._with_word(gateway, name) for gateway in self._gateways())

    def _with_word(self, gateway: ObservedGateway, name: str) -> ObservedGateway:
        heard = self._heard.get(gateway.name)
        if heard is None:
            return gateway
        return replace(
            gateway,
            leaving=gateway.leaving or heard.report.leaving,
            epoch=heard.report.epoch,
            traffic=heard.report.objects.get(name),
            heard=self._clock() - heard.at < _UNHEARD_SECONDS,
        )

    def told_at(self, gateway: str) -> float:
        """When this gateway's last report came, by the clock; long ago for one that was never heard."""
        heard = self._heard.get(gateway)
        return heard.at if heard else float("-inf")

    def counted_at(self, gateway: str) -> float:
        """When this gateway's last report was counted: between two of them, exactly so much time has passed."""
        heard = self._heard.get(gateway)
        return heard.counted_at if heard else float("-inf")

    async def run(self) -> None:
        """Ask and listen until cancelled."""
        self._heard.clear()
        self._asked.clear()
        self.all_asked.clear()
        tasks: dict[tuple[str, str], list[asyncio.Task[None]]] = {}
        # A gateway's address is asked again and again: one connection for it and one for its stream.
        async with aiohttp.ClientSession(timeout=_TIMEOUT, connector=aiohttp.TCPConnector(limit=0)) as session:
            try:
                while True:
                    alive = {(each.name, each.address) for each in self._gateways() if each.address}
                    for gone in tasks.keys() - alive:
                        for task in tasks.pop(gone):
                            task.cancel()
                        self._forget(gone[0])
                    for name, address in alive - tasks.keys():
                        tasks[(name, address)] = [
                            asyncio.create_task(self._ask_for_ever(session, name, address)),
                            asyncio.create_task(self._listen_for_ever(session, name, address)),
                        ]
                    if {name for name, _ in alive} <= self._asked:
                        self.all_asked.set()
                    for task in (task for pair in tasks.values() for task in pair if task.done()):
                        # They end only by a fault of ours: the leadership ends with it, and begins anew.
                        task.result()
                    await asyncio.sleep(_POLL_SECONDS / 2)
            finally:
                for pair in tasks.values():
                    for task in pair:
                        task.cancel()
                await asyncio.gather(*(task for pair in tasks.values() for task in pair), return_exceptions=True)

    def _forget(self, gateway: str) -> None:
        heard = self._heard.pop(gateway, None)
        for name in heard.report.objects if heard else ():
            self._on_change(_key(name))

    async def _ask_for_ever(self, session: aiohttp.ClientSession, name: str, address: str) -> None:
        lost = False
        while True:
            started = self._clock()
            try:
                self._take(name, *await self._ask(session, address))
                lost = False
                metrics.GATEWAY_POLLS.labels("answered").inc()
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                metrics.GATEWAY_POLLS.labels("failed").inc()
                if not lost:
                    _log.info("gateway not heard", gateway=name, error=_words(error))
                lost = True
            self._asked.add(name)
            self._tell_silence(name)
            await asyncio.sleep(max(0.0, _POLL_SECONDS - (self._clock() - started)))

    async def _ask(self, session: aiohttp.ClientSession, address: str) -> tuple[bytes, float | None]:
        """A report as it came, and when it was counted by the gateway's clock."""
        async with session.get(_url(address, REPORT_PATH), headers=self._headers(), allow_redirects=False) as response:
            response.raise_for_status()
            body = bytearray()
            async for chunk in response.content.iter_chunked(64 * 1024):
                body += chunk
                if len(body) > _ANSWER_LIMIT_BYTES:
                    raise ValueError("the answer is too long")
            counted = float(response.headers.get(COUNTED_AT_HEADER, "nan"))
            return bytes(body), counted if math.isfinite(counted) else None

    def _take(self, name: str, body: bytes, counted: float | None) -> None:
        at = self._clock()
        before = self._heard.get(name)
        if before is not None and before.body == body:
            before.at, before.counted_at, before.silence_told = at, _counted_at(at, counted, before.offset), False
            return
        report = GatewayReport.model_validate_json(body)
        goes_on = before is not None and before.report.epoch == report.epoch
        known = before.offset if before is not None and goes_on else None
        offset = known if known is not None or counted is None else at - counted
        counted_at = _counted_at(at, counted, offset)
        self._heard[name] = _Heard(report=report, at=at, body=body, counted_at=counted_at, offset=offset)
        was = before.report.objects if before else {}
        for changed in was.keys() | report.objects.keys():
            then, now = was.get(changed), report.objects.get(changed)
            if _essence(then) != _essence(now):
                self._on_change(_key(changed))
            if before and then and now and now.arrivals > then.arrivals and goes_on:
                seconds = max(counted_at - before.counted_at, _POLL_SECONDS / 2)
                self._on_arrivals(_key(changed), (now.arrivals - then.arrivals) / seconds)

    def _tell_silence(self, name: str) -> None:
        """Have its objects looked at once when a gateway falls silent."""
        heard = self._heard.get(name)
        if heard is None or heard.silence_told or self._clock() - heard.at < _UNHEARD_SECONDS:
            return
        heard.silence_told = True
        for changed in heard.report.objects:
            self._on_change(_key(changed))

    async def _listen_for_ever(self, session: aiohttp.ClientSession, name: str, address: str) -> None:
        while True:
            try:
                async with session.get(
                    _url(address, WAKES_PATH), headers=self._headers(), allow_redirects=False, timeout=_STREAM_TIMEOUT
                ) as response:
                    response.raise_for_status()
                    async for line in response.content:
                        if len(line) > _LINE_LIMIT_BYTES:
                            raise ValueError("the line is too long")
                        wake = Wake.model_validate_json(line)
                        if wake.object:
                            metrics.WAKES.inc()
                            if self._clock() - self.told_at(name) >= _UNHEARD_SECONDS:
                                # What is held counts only with the gateway's own word, and that is due anyway.
                                self._take(name, *await self._ask(session, address))
                            self._note_held(name, wake)
                            self._on_wake(_key(wake.object))
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                _log.debug("gateway's wakes not heard", gateway=name, error=_words(error))
            await asyncio.sleep(_RETRY_SECONDS)

    def _note_held(self, name: str, wake: Wake) -> None:
        """The next report says the same; until then this is newer."""
        heard = self._heard.get(name)
        if heard is None:
            return
        known = heard.report.objects.get(wake.object) or ObjectTraffic()
        objects = {**heard.report.objects, wake.object: known.model_copy(update={"held": wake.held})}
        heard.report = heard.report.model_copy(update={"objects": objects})
        # The next report is read whatever it says: it may be the one before the wake once more.
        heard.body = b""

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token()}"}


def _counted_at(at: float, counted: float | None, offset: float | None) -> float:
    """On this process's clock."""
    return at if counted is None or offset is None else counted + offset


def _essence(traffic: ObjectTraffic | None) -> object:
    """What is worth a new plan: not every request."""
    if traffic is None:
        return None
    idle = frozenset(workload for workload, word in traffic.workloads.items() if not word.in_flight)
    return (traffic.generation, traffic.waits_for, traffic.rejected, idle)


def _key(name: str) -> ObjectKey:
    namespace, _, object_name = name.partition("/")
    return namespace, object_name


def _url(address: str, path: str) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{gateway_pod.REPORT_PORT}{path}"


def _words(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return f"the answer makes no sense: {error.errors()[0]['msg']}"
    return str(error) or type(error).__name__
