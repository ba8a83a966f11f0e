"""How resources get to Envoy and its answer back. Files today; incremental xDS could take their place here."""

import asyncio
import itertools
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Protocol

import structlog

from conch.gateway.envoy import naming
from conch.gateway.envoy.admin import EnvoyAdmin, EnvoyAwayError, StatType
from conch.gateway.envoy.files import Kind, ResourceFiles

_log = structlog.get_logger(__name__)

NO_WORDS: Final = "Envoy refused it; its log says why"

_POLL_SECONDS_FIRST: Final = 0.01
_POLL_SECONDS_MOST: Final = 0.25
_PATIENCE_SECONDS: Final = 10
"""Within this Envoy has said yes or no, or it never saw the file: it was restarting."""
_AGE_IS_UNSURE_SECONDS: Final = 2
_SUBSCRIPTION: Final = {
    Kind.CLUSTERS: "cluster_manager.cds",
    Kind.LISTENERS: "listener_manager.lds",
    Kind.ROUTES: f".rds.{naming.ROUTE_CONFIGURATION}",
}
_CLUSTERS_WARMING: Final = "cluster_manager.warming_clusters"
_LISTENERS_WARMING: Final = "listener_manager.total_listeners_warming"
_LISTENER_COUNTS: Final = ("listener_manager.total_listeners_active", _LISTENERS_WARMING)
_VERSIONS: Final = r"\.version_text$"
_REFUSALS: Final = r"\.update_rejected$"
_GAUGES: Final = r"^cluster_manager\.warming_clusters$|^listener_manager\.total_listeners_(active|warming)$"
_WARM_UP_SECONDS: Final = 0.1
"""How long the first health checks of changed clusters are waited for. Servers that are well answer in a few
milliseconds; one that hangs takes its check's whole time-out, and no other object may wait for that."""
_REFUSAL_LOOK_SECONDS: Final = 0.2
"""How long Envoy may be silent before its counters are read: that is dear with many clusters, and an update quick."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Envoy does not want what it was given; what is not at fault it may or may not do."""

    named: Mapping[str, str] = field(default_factory=dict)
    """Resources that it names, and its words; empty if it names none."""


class Delivery(Protocol):
    """What the synchroniser needs of a way to Envoy."""

    def delivered(self, kind: Kind) -> dict[str, str]:
        """What was last given, also by an earlier process."""

    async def deliver(self, kind: Kind, resources: Mapping[str, str], *, changed: Set[str]) -> Refusal | None:
        """Give all resources of a kind; returns when Envoy does it (None) or refuses. Waits for an Envoy that is away.

        `changed` are names of resources that Envoy does not have, or not like this. Clusters may be `warming` still.
        """

    async def warming(self) -> Set[str]:
        """Names of clusters that Envoy has taken and does not use yet, since their first health checks are not over.

        What it had under such a name before, if anything, goes on. Waits for an Envoy that is away.
        """

    async def has_restarted(self) -> bool:
        """Whether it is another Envoy than at the last question; False while none answers."""


class _Seen(Enum):
    APPLIED = auto()
    REFUSED = auto()
    NOTHING = auto()


class FileDelivery:
    """By files, with Envoy's own statistics as the answer."""

    def __init__(self, files: ResourceFiles, admin: EnvoyAdmin, *, run: str, clock: Callable[[], float]) -> None:
        """`run` names this process among all that ever write these files; `clock` is in seconds and only grows."""
        self._files = files
        self._admin = admin
        self._clock = clock
        self._versions = (f"{run}-{number}" for number in itertools.count(1))
        self._started: float | None = None
        self._refused: dict[str, int | str] | None = None
        """Envoy's counters of refused files when they were last read; None if it may count anew since."""

    def delivered(self, kind: Kind) -> dict[str, str]:
        """What is in the file."""
        return self._files.read(kind)

    async def deliver(self, kind: Kind, resources: Mapping[str, str], *, changed: Set[str]) -> Refusal | None:
        """Write, and poll until Envoy has answered."""
        while True:
            if self._refused is None:
                self._refused = await self._read(_REFUSALS, StatType.COUNTERS)
            version = next(self._versions)
            self._files.write(kind, version, resources)
            match await self._answer(kind, version):
                case _Seen.APPLIED:
                    if kind is Kind.CLUSTERS:
                        await self._warm_up(changed)
                    return None
                case _Seen.REFUSED:
                    return Refusal(named=await self._named(kind, version, changed))
                case _Seen.NOTHING:
                    self._refused = None
                    _log.warning("Envoy neither took nor refused a file; it is written again", file=kind.value)

    async def warming(self) -> Set[str]:
        """By name only while there are any: Envoy's own count of them is cheap."""
        while (await self._read(_GAUGES, StatType.GAUGES)).get(_CLUSTERS_WARMING) != 0:
            try:
                return await self._admin.warming_clusters()
            except EnvoyAwayError as error:
                _log.debug("Envoy does not answer", error=str(error))
            await asyncio.sleep(_POLL_SECONDS_FIRST)
        return frozenset()

    async def _warm_up(self, names: Set[str]) -> None:
        started = now = self._clock()
        while now < started + _WARM_UP_SECONDS and names & await self.warming():
            await asyncio.sleep(_POLL_SECONDS_FIRST)
            now = self._clock()

    async def has_restarted(self) -> bool:
        """By when it started, which is known to a second or so."""
        try:
            started = self._clock() - (await self._admin.server_info()).uptime_seconds
        except EnvoyAwayError:
            return False
        before, self._started = self._started, started
        has_restarted = before is not None and started > before + _AGE_IS_UNSURE_SECONDS
        if has_restarted:
            self._refused = None
        return has_restarted

    async def _answer(self, kind: Kind, version: str) -> _Seen:
        started = looked = self._clock()
        pause_seconds = _POLL_SECONDS_FIRST
        while (now := self._clock()) < started + _PATIENCE_SECONDS:
            if await self._does(kind, version):
                return _Seen.APPLIED
            if now >= looked + _REFUSAL_LOOK_SECONDS:
                looked = now
                if await self._has_refused(kind):
                    return _Seen.REFUSED
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 1.5, _POLL_SECONDS_MOST)
        return _Seen.NOTHING

    async def _does(self, kind: Kind, version: str) -> bool:
        """Whether it does what came with the version. Without a listener nobody asks for routes: the next one will."""
        versions = await self._read(_VERSIONS, StatType.TEXTS)
        is_there = version in _of(kind, versions).values()
        if kind is Kind.ROUTES:
            return is_there or (bool(_of(Kind.LISTENERS, versions)) and not await self._listens())
        if not is_there or kind is Kind.CLUSTERS:
            return is_there
        return (await self._read(_GAUGES, StatType.GAUGES)).get(_LISTENERS_WARMING) == 0

    async def _listens(self) -> bool:
        gauges = await self._read(_GAUGES, StatType.GAUGES)
        return any(gauges.get(name) for name in _LISTENER_COUNTS)

    async def _has_refused(self, kind: Kind) -> bool:
        before, self._refused = self._refused or {}, await self._read(_REFUSALS, StatType.COUNTERS)
        return _sum(_of(kind, self._refused)) > _sum(_of(kind, before))

    async def _named(self, kind: Kind, version: str, changed: Set[str]) -> dict[str, str]:
        """Whom Envoy names. It keeps its words about listeners; what it has against clusters is in its log only."""
        try:
            match kind:
                case Kind.LISTENERS:
                    return await self._admin.refused_listeners()
                case Kind.CLUSTERS:
                    versions = await self._admin.cluster_versions()
                    return {name: NO_WORDS for name in changed if versions.get(name) != version}
                case Kind.ROUTES:
                    return {}
        except EnvoyAwayError:
            return {}

    async def _read(self, pattern: str, type_: StatType) -> dict[str, int | str]:
        """Waits for an Envoy that does not answer; one that comes back counts anew."""
        pause_seconds = _POLL_SECONDS_FIRST
        while True:
            try:
                return await self._admin.stats(pattern, only=type_)
            except EnvoyAwayError as error:
                self._refused = None
                _log.debug("Envoy does not answer", error=str(error))
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 1.5, _POLL_SECONDS_MOST)


def _of(kind: Kind, stats: Mapping[str, int | str]) -> dict[str, int | str]:
    """Those of the kind's subscription."""
    start, end = ("http.", _SUBSCRIPTION[kind]) if kind is Kind.ROUTES else (_SUBSCRIPTION[kind], "")
    return {name: value for name, value in stats.items() if name.startswith(start) and end in name}


def _sum(counters: Mapping[str, int | str]) -> int:
    return sum(int(value) for value in counters.values())
