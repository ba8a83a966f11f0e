"""Envoy's administration, on loopback: what it does now, and the few things it is told by a request."""

import json
from dataclasses import dataclass
from enum import Enum
from typing import Any

import aiohttp


class EnvoyAwayError(Exception):
    """Envoy does not answer, or not with what is expected: it starts, ends, or is overloaded."""


class StatType(Enum):
    """Of statistics with one value."""

    COUNTERS = "Counters"
    GAUGES = "Gauges"
    TEXTS = "TextReadouts"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """Which Envoy it is."""

    state: str
    """LIVE once it serves; DRAINING after `fail_health_check`."""
    version: str
    uptime_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Since Envoy's start."""

    bounds: tuple[float, ...]
    """Upper ones."""
    counts: tuple[int, ...]
    """One per bound (values up to it, and above the one before), and one beyond; Envoy tells none of the latter."""


class EnvoyAdmin:
    """Requests to the administration; every read is filtered, for a full page is 45 MB at 2,000 clusters.

    Raises EnvoyAwayError.
    """

    def __init__(self, session: aiohttp.ClientSession, port: int, *, timeout_seconds: float = 10) -> None:
        """On loopback; the caller closes the session."""
        self._session = session
        self._url = f"http://127.0.0.1:{port}"
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)

    async def is_ready(self) -> bool:
        """Whether it is there and serves."""
        try:
            return (await self.server_info()).state == "LIVE"
        except EnvoyAwayError:
            return False

    async def server_info(self) -> ServerInfo:
        """Its state and age."""
        info = _object(await self._ask("/server_info"))
        try:
            uptime = int(float(str(info["uptime_all_epochs"]).removesuffix("s")))
            return ServerInfo(state=info["state"], version=info["version"], uptime_seconds=uptime)
        except (KeyError, TypeError, ValueError) as error:
            raise EnvoyAwayError(f"/server_info is not understood: {error!r}") from error

    async def stats(self, pattern: str, *, only: StatType | None = None) -> dict[str, int | str]:
        """Counters, gauges and texts whose names the regular expression finds.

        With 2,000 clusters Envoy looks at 100,000 names for that; of one type there may be far fewer. Without a type,
        what never had another value than 0 is left out: of a fleet that is mostly idle that is nearly all.
        """
        query = {"type": only.value} if only else {"usedonly": ""}
        answer = _object(await self._ask("/stats", filter=pattern, format="json", **query))
        return {each["name"]: each["value"] for each in answer.get("stats", ()) if "name" in each}

    async def histograms(self, pattern: str) -> dict[str, Histogram]:
        """Histograms whose names the regular expression finds, as they were at the last flush."""
        query = {"filter": pattern, "format": "json", "type": "Histograms", "histogram_buckets": "disjoint"}
        answer = _object(await self._ask("/stats", **query))
        found = (each["histograms"] for each in answer.get("stats", ()) if "histograms" in each)
        return {each["name"]: _histogram(each) for part in found for each in part}

    async def refused_listeners(self) -> dict[str, str]:
        """What Envoy says against listeners, by name."""
        states = await self._configs("dynamic_listeners", "name,error_state.details")
        named = ((each.get("name"), each.get("error_state", {}).get("details")) for each in states)
        return {name: words for name, words in named if name and words}

    async def cluster_versions(self) -> dict[str, str]:
        """With which version of the file each cluster came to be what it is; those that warm up included."""
        mask = "cluster.name,version_info"
        parts = [await self._configs(f"dynamic_{state}_clusters", mask) for state in ("active", "warming")]
        return {each["cluster"]["name"]: each.get("version_info", "") for part in parts for each in part}

    async def warming_clusters(self) -> frozenset[str]:
        """Names of those whose first health checks are not over."""
        warming = await self._configs("dynamic_warming_clusters", "cluster.name")
        return frozenset(each["cluster"]["name"] for each in warming)

    async def fail_health_check(self) -> None:
        """Say `DRAINING` to whoever asks /ready."""
        await self._ask("/healthcheck/fail", method="POST")

    async def _configs(self, resource: str, mask: str) -> list[dict[str, Any]]:
        answer = _object(await self._ask("/config_dump", resource=resource, mask=mask))
        configs: list[dict[str, Any]] = answer.get("configs", [])
        return configs

    async def _ask(self, path: str, *, method: str = "GET", **query: str) -> str:
        try:
            async with self._session.request(method, self._url + path, params=query, timeout=self._timeout) as response:
                text = await response.text()
                if response.status != 200:
                    raise EnvoyAwayError(f"{path} was answered with {response.status}: {text[:200]}")
                return text
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EnvoyAwayError(f"{path}: {error!r}") from error


def _object(text: str) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise EnvoyAwayError(f"not JSON: {text[:200]}") from error
    if not isinstance(answer, dict):
        raise EnvoyAwayError(f"not an object: {text[:200]}")
    return answer


def _histogram(told: dict[str, Any]) -> Histogram:
    # `interval` is since the last flush, `cumulative` since the start; the buckets are disjoint in both.
    buckets = told["buckets"]
    return Histogram(
        bounds=tuple(each["upper_bound"] for each in buckets),
        counts=(*(each["cumulative"] for each in buckets), 0),
    )
