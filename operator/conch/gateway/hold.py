"""Requests that wait for a server: how many, how long, and how fast they are let go once there is one.

Envoy keeps the requests; here are only their places. One queue per object, so that no object waits for another.
"""

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from conch.gateway.envoy.admin import EnvoyAwayError
from conch.gateway.envoy.naming import ClusterId
from conch.gateway.envoy.naming import Protocol as Spoken
from conch.gateway.routed import ObjectKey, RoutedObject, Snapshot
from conch.gateway.traffic import Sent

_log = structlog.get_logger(__name__)

WINDOW_REQUESTS: Final = 32
"""Per server, where the author has not said what it can take: enough for a dynamic batcher to fill its largest usual
batches, and far below what makes a server's queue time out."""
POLL_SECONDS: Final = 0.02
"""How often Envoy is asked what is unfinished, while somebody waits and servers are there."""
UNSEEN_SECONDS: Final = 0.02
"""How long after its release a request may not be in Envoy's count yet; Envoy needs a millisecond or two."""
HELD_MOST: Final = 10_000
"""Requests of all objects together that one gateway holds: each is a connection to the sidecar, of some 15 KiB."""
HELD_MOST_OF_ONE: Final = HELD_MOST // 2
"""What any one object may have of them, whatever its `maxRequests`: there is always room for somebody else's."""
RETRY_AFTER_SECONDS: Final = 5
"""What refused clients are told: about what a server needs that is nearly there."""

GRPC_RESOURCE_EXHAUSTED: Final = 8
GRPC_UNAVAILABLE: Final = 14

AskSent = Callable[[Iterable[ObjectKey]], Awaitable[Mapping[ObjectKey, Sent]]]
"""What Envoy has sent to servers of each object; raises EnvoyAwayError."""


class Routes(Protocol):
    """What Envoy has acknowledged."""

    def servers(self, key: ObjectKey) -> int:
        """How many servers requests for the object can go to."""

    def serving(self, key: ObjectKey) -> tuple[tuple[str, int], ...]:
        """The workloads that these are of, with their weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoOn:
    """The request may go on, to this cluster: it was routed before there were servers."""

    cluster: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The request is refused, with what its client is told."""

    status: int
    grpc_status: int
    message: str
    retry_after_seconds: int = RETRY_AFTER_SECONDS


Verdict = GoOn | Refusal


def places(object_: RoutedObject, gateways: int) -> int:
    """How many requests for the object one of the gateways may hold: its share, rounded up.

    So all together may hold up to one less than the number of gateways above the bound. Never more than
    HELD_MOST_OF_ONE.
    """
    return min(HELD_MOST_OF_ONE, -(-object_.gateway.effective_hold.max_requests // max(gateways, 1)))


def allowance(object_: RoutedObject, *, servers: int, gateways: int) -> int:
    """How many requests one of the gateways may have with the object's servers at a time, by releasing held ones.

    With `maxInFlight` the part of it that belongs to the servers that are there, so that Envoy's own limit never
    refuses a request that was held. At least 1: a request in a window of none would never go on.
    """
    gateways = max(gateways, 1)
    most = object_.gateway.max_in_flight
    if most is None:
        return max(1, -(-WINDOW_REQUESTS * servers // gateways))
    wanted = max(object_.desired_replicas, 1)
    return max(1, -(-most * min(servers, wanted) // (wanted * gateways)))


@dataclass(slots=True)
class _Queue:
    waiting: OrderedDict[asyncio.Future[Verdict], Spoken] = field(default_factory=OrderedDict)
    """In the order in which they came."""
    going: int = 0
    """Let go, but Envoy is not told yet: there may be many, and this process may be busy."""
    released: deque[float] = field(default_factory=deque)
    """When Envoy was told of the last ones, as long as it may not count them yet."""
    let_go: int = 0
    """All so far."""
    sent: int = 0
    """What Envoy had sent in all when it was last asked, and ..."""
    direct: int | None = None
    """... the most of it that did not wait here. It jumps back when some are let go, until Envoy counts them."""

    def is_overtaken(self, sent: Sent) -> bool:
        """Whether others went to servers since the last question."""
        direct = sent.total - self.let_go
        known, is_other_envoy = self.direct, sent.total < self.sent
        self.sent = sent.total
        self.direct = direct if known is None or is_other_envoy else max(known, direct)
        return known is not None and not is_other_envoy and direct > known


class Hold:
    """The places of all objects. `run` lets requests go; `changed` is called when objects or their servers changed."""

    def __init__(
        self,
        *,
        snapshot: Callable[[], Snapshot],
        routes: Routes,
        sent: AskSent,
        clock: Callable[[], float],
        on_held: Callable[[], None] = lambda: None,
    ) -> None:
        """`clock` is in seconds; `on_held` is called whenever one more request is held."""
        self._snapshot = snapshot
        self._routes = routes
        self._sent = sent
        self._clock = clock
        self._on_held = on_held
        self._queues: dict[ObjectKey, _Queue] = {}
        self._refused: dict[ObjectKey, int] = {}
        self._work = asyncio.Event()

    def held(self) -> Mapping[ObjectKey, int]:
        """Requests that wait now, by object."""
        return {key: len(queue.waiting) for key, queue in self._queues.items() if queue.waiting}

    def refused(self, key: ObjectKey) -> int:
        """How many requests for the object were refused so far."""
        return self._refused.get(key, 0)

    def changed(self) -> None:
        """Objects, their servers or what is known of them may be others now."""
        self._work.set()

    async def check(self, key: ObjectKey, protocol: Spoken) -> Verdict:
        """Returns when the request may go on, or is refused; whoever is cancelled gives the place back."""
        snapshot = self._snapshot()
        object_ = snapshot.objects.get(key)
        if object_ is None:
            return _unavailable("this model is not served here")
        queue = self._queues.get(key)
        if (queue is None or not queue.waiting) and (target := self._target(key, protocol)):
            return target
        refusal = _no_hope(object_)
        if refusal is None and queue and len(queue.waiting) >= places(object_, snapshot.gateways.get(key, 1)):
            refusal = _exhausted("no server of this model is ready yet, and as many requests wait as may")
        if refusal is None and sum(self.held().values()) >= HELD_MOST:
            refusal = _exhausted(
                "no server of this model is ready yet, and this gateway holds as many requests as it may"
            )
        verdict = refusal or await self._wait(key, protocol, object_.gateway.effective_hold.seconds)
        if isinstance(verdict, Refusal):
            self._refused[key] = self._refused.get(key, 0) + 1
        return verdict

    async def _wait(self, key: ObjectKey, protocol: Spoken, seconds: float) -> Verdict:
        queue = self._queues.setdefault(key, _Queue())
        place: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        queue.waiting[place] = protocol
        self._on_held()
        self._work.set()
        try:
            async with asyncio.timeout(seconds):
                return await place
        except TimeoutError:
            # In the last moment it may have been let go.
            return place.result() if _is_let_go(place) else _unavailable(_late(seconds))
        finally:
            queue.waiting.pop(place, None)
            if _is_let_go(place):
                queue.going -= 1
                queue.released.append(self._clock())

    async def run(self) -> None:
        """Let requests go as servers come and finish, until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            self._give_up_hopeless()
            while ready := [key for key, number in self.held().items() if number and self._routes.servers(key)]:
                try:
                    await self._release(ready)
                except EnvoyAwayError as error:
                    _log.info("held requests wait for Envoy itself", error=str(error))
                await asyncio.sleep(POLL_SECONDS)
                self._give_up_hopeless()

    def _give_up_hopeless(self) -> None:
        """Answer those whose object went, or for which nobody comes any more."""
        objects = self._snapshot().objects
        seen_before = self._clock() - UNSEEN_SECONDS
        self._refused = {key: number for key, number in self._refused.items() if key in objects}
        for key, queue in tuple(self._queues.items()):
            if not queue.waiting:
                if not queue.going and not any(at > seen_before for at in queue.released):
                    del self._queues[key]
                continue
            object_ = objects.get(key)
            if object_ is None:
                _answer_all(queue, _unavailable("this model was removed"))
            elif not self._routes.servers(key) and (refusal := _no_hope(object_)):
                _answer_all(queue, refusal)

    async def _release(self, keys: Iterable[ObjectKey]) -> None:
        """Let as many go as the servers have room for.

        Once there are servers, new requests go to them without asking here, and may fill all the room that there is. So
        whenever some did since the last look, one that waits goes as well: nobody waits for ever, and what waits takes
        its turns with what comes. While no others come, the room alone counts: then servers finish what was let go.
        """
        asked_at = self._clock()
        sent = await self._sent(keys)
        snapshot = self._snapshot()
        for key in keys:
            queue, object_ = self._queues[key], snapshot.objects.get(key)
            while queue.released and queue.released[0] < asked_at - UNSEEN_SECONDS:
                queue.released.popleft()
            if object_ is None:
                continue
            most = allowance(object_, servers=self._routes.servers(key), gateways=snapshot.gateways.get(key, 1))
            of_object = sent.get(key, Sent())
            free = most - of_object.unfinished - queue.going - len(queue.released)
            if queue.is_overtaken(of_object):
                free = max(free, 1)
            for _ in range(min(free, len(queue.waiting))):
                place, protocol = next(iter(queue.waiting.items()))
                target = self._target(key, protocol)
                if target is None:
                    break
                del queue.waiting[place]
                if not place.done():
                    place.set_result(target)
                    queue.going += 1
                    queue.let_go += 1

    def _target(self, key: ObjectKey, protocol: Spoken) -> GoOn | None:
        """A cluster of the object that has servers, by weight."""
        serving = self._routes.serving(key)
        if not serving:
            return None
        workloads, weights = zip(*serving, strict=True)
        (workload,) = random.choices(workloads, weights)  # noqa: S311 - a share of requests
        return GoOn(cluster=str(ClusterId(namespace=key[0], workload=workload, protocol=protocol)))


def _no_hope(object_: RoutedObject) -> Refusal | None:
    """Why waiting is of no use, if it is not."""
    if object_.desired_replicas == 0 and not object_.wakes:
        return _unavailable("this model is to have no replicas now: it is suspended, or scaled to zero by hand")
    if object_.gateway.effective_hold.seconds == 0:
        return _unavailable("no server of this model is ready, and its requests are not held")
    return None


def _is_let_go(place: asyncio.Future[Verdict]) -> bool:
    return place.done() and not place.cancelled() and isinstance(place.result(), GoOn)


def _late(seconds: float) -> str:
    return f"no server of this model was ready within {seconds:g} s"


def _unavailable(message: str) -> Refusal:
    return Refusal(status=503, grpc_status=GRPC_UNAVAILABLE, message=message)


def _exhausted(message: str) -> Refusal:
    return Refusal(status=429, grpc_status=GRPC_RESOURCE_EXHAUSTED, message=message)


def _answer_all(queue: _Queue, refusal: Refusal) -> None:
    for place in queue.waiting:
        if not place.done():
            place.set_result(refusal)
    queue.waiting.clear()
