"""Keeps Envoy doing what the last snapshot says, and says how far it is."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from conch.gateway.envoy.bootstrap import DRAIN_SECONDS
from conch.gateway.envoy.culprits import deliver_good_part
from conch.gateway.envoy.delivery import Delivery
from conch.gateway.envoy.files import Kind
from conch.gateway.envoy.render import EnvoyConfig, ObjectConfig, Renderer
from conch.gateway.envoy.transition import Transition, unwanted_routes
from conch.gateway.routed import ObjectKey, Snapshot

_log = structlog.get_logger(__name__)

ROUTE_CHANGED: Final = "the route changed"
"""Logged for each object, so that the times of single changes can be read from a log of level debug."""
_NOT_YET: Final = "Envoy has not acknowledged it yet"
_WARMS_UP: Final = "the first health checks of its servers are not over"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteState:
    """How far an object's route is."""

    generation: str = ""
    """What Envoy does; empty while it does not do all of what any generation stands for."""
    waits_for: str = ""
    """Why the wanted generation is not what Envoy does."""
    rejected: bool = False
    """Whether somebody has to act: Envoy refused it, or another object has its port."""
    endpoints: int = 0
    """Servers that requests go to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncTimes:
    """Seconds."""

    settle_seconds: float = 0.1
    """Changes that come within this become one."""
    look_seconds: float = 1.0
    """How often it is asked whether Envoy has restarted, and whether a departure or another try is due."""
    departure_seconds: float = DRAIN_SECONDS
    """How long requests are still served for an object that left; not shorter than Envoy drains its listener."""
    warming_look_seconds: float = 0.1
    """How often Envoy is asked whether servers have passed their first health check, while some have not."""
    retry_seconds: float = 30.0
    """After this, what Envoy refused is tried again without a change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refused:
    config: ObjectConfig
    words: str
    retry_at: float


class Synchroniser:
    """Takes snapshots at any rate; the newest counts. One task runs `run`; all else may be called at any time."""

    def __init__(
        self,
        renderer: Renderer,
        delivery: Delivery,
        *,
        clock: Callable[[], float],
        on_change: Callable[[ObjectKey], None] = lambda _key: None,
        times: SyncTimes | None = None,
    ) -> None:
        """`clock` is in seconds and only grows; `on_change` is called when an object's state or servers changed."""
        self.synced = asyncio.Event()
        """The first snapshot is done as far as Envoy takes it."""
        self._renderer = renderer
        self._delivery = delivery
        self._clock = clock
        self._on_change = on_change
        self._times = times or SyncTimes()
        self._news = asyncio.Event()
        self._snapshot: Snapshot | None = None
        self._wanted = EnvoyConfig()
        self._have: dict[Kind, dict[str, str]] = {}
        self._confirmed: set[Kind] = set()
        """Of which Envoy itself has said to this process that it does it."""
        self._done: dict[ObjectKey, ObjectConfig] = {}
        self._serving: dict[ObjectKey, ObjectConfig] = {}
        self._refused: dict[ObjectKey, _Refused] = {}
        self._departures: dict[str, float] = {}
        self._warming: set[ObjectKey] = set()
        """Objects that stay as they were until Envoy uses their clusters; nobody else waits for that."""

    def want(self, snapshot: Snapshot) -> None:
        """What is to be routed from now on."""
        self._snapshot = snapshot
        self._news.set()

    def state(self, key: ObjectKey) -> RouteState:
        """How far the object is; empty for one that is not known."""
        done = self._done.get(key)
        generation = done.generation if done and not done.waits_for else ""
        endpoints = self.servers(key)
        if words := self._words_against(key):
            return RouteState(generation=generation, waits_for=words, rejected=True, endpoints=endpoints)
        wanted = self._wanted.objects.get(key)
        not_yet = _WARMS_UP if key in self._warming else _NOT_YET
        waits_for = done.waits_for if done and done is wanted else not_yet if wanted else ""
        return RouteState(generation=generation, waits_for=waits_for, endpoints=endpoints)

    def servers(self, key: ObjectKey) -> int:
        """How many servers requests for the object can go to, by what Envoy has acknowledged."""
        serving = self._serving.get(key)
        return serving.endpoints if serving else 0

    def serving(self, key: ObjectKey) -> tuple[tuple[str, int], ...]:
        """The workloads that these are of, with their weights: a held request goes to one of them."""
        serving = self._serving.get(key)
        return serving.servers if serving else ()

    async def run(self) -> None:
        """Until it is cancelled."""
        self._have = {kind: self._delivery.delivered(kind) for kind in Kind}
        while True:
            times = self._times
            if await self._news_within(times.warming_look_seconds if self._warming else times.look_seconds):
                await asyncio.sleep(times.settle_seconds)
                self._news.clear()
                await self._round()
                self.synced.set()
            elif await self._delivery.has_restarted():
                _log.info("Envoy has started anew")
                await self._deliver_again()
            elif self._is_due() or await self._has_warmed_up():
                await self._round()

    async def _news_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._news.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _is_due(self) -> bool:
        now = self._clock()
        return any(now >= each.retry_at for each in self._refused.values()) or any(
            now >= at for at in self._departures.values()
        )

    async def _has_warmed_up(self) -> bool:
        """Whether anything has become possible that had to wait for a first health check."""
        return bool(self._warming) and not self._warming <= await self._warming_objects(self._wanted)

    async def _warming_objects(self, wanted: EnvoyConfig) -> set[ObjectKey]:
        names = await self._delivery.warming()
        return {key for key, each in wanted.objects.items() if names and not names.isdisjoint(each.clusters)}

    async def _round(self) -> None:
        """Bring Envoy to the newest snapshot."""
        if self._snapshot is None:
            return
        before = self._states()
        self._wanted = wanted = self._renderer.render(self._snapshot)
        now = self._clock()
        waiting = {
            key for key, each in self._refused.items() if wanted.objects.get(key) is each.config and now < each.retry_at
        }
        change = Transition(wanted=wanted, have=self._have, departing=self._departing(now), stuck=waiting)
        # Nobody is let go to servers that are about to go.
        self._serving = {
            key: each for key, each in self._serving.items() if key in wanted.objects and wanted.objects[key].endpoints
        }
        self._tell_changes(before)
        if await self._step(Kind.CLUSTERS, change, change.clusters_added()) or self._warming:
            before = self._states()
            self._warming = await self._warming_objects(wanted) - change.stuck
            self._tell_changes(before)
        change.stuck |= self._warming
        before = self._states()
        self._serving |= {
            key: each for key, each in wanted.objects.items() if key not in change.stuck and each.endpoints
        }
        # Held requests go on now; nothing of what follows is needed for them.
        self._tell_changes(before)
        await self._step(Kind.ROUTES, change, change.routes_changed())
        await self._step(Kind.LISTENERS, change, change.listeners())
        await self._step(Kind.ROUTES, change, change.routes_left())
        await self._step(Kind.CLUSTERS, change, change.clusters_left())
        before = self._states()
        self._done = {key: each for key, each in self._done.items() if key in wanted.objects} | {
            key: each for key, each in wanted.objects.items() if key not in change.stuck
        }
        self._refused = {
            key: each for key, each in self._refused.items() if key in change.stuck and key not in self._warming
        }
        self._tell_changes(before)

    async def _step(self, kind: Kind, change: Transition, target: dict[str, str]) -> bool:
        """One delivery if it changes anything, and whether it did.

        Objects that Envoy refuses something of become stuck.
        """
        if target == self._have[kind] and kind in self._confirmed:
            return False
        taken = await deliver_good_part(self._delivery, kind, have=self._have[kind], target=target)
        self._have[kind] = taken.resources
        self._confirmed.add(kind)
        for name, words in taken.refused.items():
            _log.error("Envoy refuses a resource", kind=kind.name.lower(), name=name, words=words)
            for key in change.owners(kind, (name,)):
                change.stuck.add(key)
                self._refused[key] = _Refused(
                    config=change.wanted.objects[key],
                    words=f"{kind.name.lower()[:-1]} {name}: {words}",
                    retry_at=self._clock() + self._times.retry_seconds,
                )
        return True

    async def _deliver_again(self) -> None:
        """To an Envoy that has just read the files: see that it took them, and what it no longer takes."""
        before = self._states()
        change = Transition(wanted=self._wanted, have=self._have, departing=set(self._departures))
        for kind in (Kind.CLUSTERS, Kind.ROUTES, Kind.LISTENERS):
            target, self._have[kind] = self._have[kind], {}
            self._confirmed.discard(kind)
            await self._step(kind, change, target)
        self._warming = await self._warming_objects(self._wanted) - change.stuck
        for key in change.stuck | self._warming:
            self._done.pop(key, None)
        self._tell_changes(before)

    def _departing(self, now: float) -> set[str]:
        """Virtual hosts of objects that left, and whose time is not over; remembers since when."""
        unwanted = unwanted_routes(self._wanted, self._have[Kind.ROUTES])
        until = now + self._times.departure_seconds
        self._departures = {name: self._departures.get(name, until) for name in unwanted}
        departing = {name for name, at in self._departures.items() if now < at}
        self._departures = {name: self._departures[name] for name in departing}
        return departing

    def _words_against(self, key: ObjectKey) -> str:
        if problem := self._wanted.problems.get(key):
            return problem
        refused = self._refused.get(key)
        return refused.words if refused else ""

    def _states(self) -> dict[ObjectKey, RouteState]:
        keys = {*self._wanted.objects, *self._wanted.problems, *self._done}
        return {key: self.state(key) for key in keys}

    def _tell_changes(self, before: dict[ObjectKey, RouteState]) -> None:
        after = self._states()
        for key in sorted({*before, *after}):
            if before.get(key) != after.get(key):
                now = after.get(key, RouteState())
                _log.debug(ROUTE_CHANGED, object="/".join(key), generation=now.generation, endpoints=now.endpoints)
                self._on_change(key)
