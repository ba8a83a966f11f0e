"""The API server's audit log: who asked for what, and when, as the server itself saw it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

WRITES: Final = frozenset({"create", "update", "patch", "delete", "deletecollection"})


def policy(*users: str) -> Mapping[str, Any]:
    """An audit policy that notes every request of these users and nothing else."""
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "rules": [{"level": "Metadata", "users": list(users)}, {"level": "None"}],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request that was answered; a watch is noted when it ends. Times are seconds since the epoch."""

    user: str
    verb: str
    resource: str
    """With the subresource: `modeldeployments/status`."""
    name: str
    code: int
    received: float
    answered: float
    selector: str
    """What narrows a list or watch, as the client wrote it."""
    continues: bool
    """Whether it asks for a further page of a list."""

    @property
    def writes(self) -> bool:
        """Whether it asked for a change, accepted or not."""
        return self.verb in WRITES


class AuditLog:
    """Reads what was added since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def skip(self) -> None:
        """Forget what is there."""
        self._position = self._path.stat().st_size

    def read(self) -> list[Request]:
        """All whole lines since the last look. Raises ValueError when the log was rotated meanwhile."""
        if self._path.stat().st_size < self._position:
            raise ValueError(f"{self._path} was rotated: raise audit_megabytes")
        with self._path.open("rb") as log:
            log.seek(self._position)
            content = log.read()
        content = content[: content.rfind(b"\n") + 1]
        self._position += len(content)
        return [_request(json.loads(line)) for line in content.splitlines()]


def _request(line: Mapping[str, Any]) -> Request:
    reference = line.get("objectRef", {})
    query = parse_qs(urlsplit(line["requestURI"]).query)
    resource = "/".join(filter(None, (reference.get("resource", ""), reference.get("subresource", ""))))
    return Request(
        user=line["user"]["username"],
        verb=line["verb"],
        resource=resource or line["requestURI"].partition("?")[0],
        name=reference.get("name", ""),
        code=line.get("responseStatus", {}).get("code", 0),
        received=_seconds(line["requestReceivedTimestamp"]),
        answered=_seconds(line["stageTimestamp"]),
        selector=",".join(query.get("labelSelector", ())),
        continues="continue" in query,
    )


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def by_kind(requests: Iterable[Request]) -> Counter[str]:
    """How many requests of each verb and resource."""
    return Counter(f"{request.verb} {request.resource}" for request in requests)


def statuses_and_events(requests: Counter[str]) -> int:
    """How many of them only say how it goes: of two that come one after the other a machine makes one, or not."""
    return sum(requests[kind] for kind in ("patch modeldeployments/status", "create events", "patch events"))


def without_statuses_and_events(requests: Counter[str]) -> int:
    """All others: what is done, which is the same on any machine."""
    return requests.total() - statuses_and_events(requests)


def without_lease(requests: Iterable[Request]) -> Iterator[Request]:
    """All but the election's."""
    return (request for request in requests if request.resource != "leases")


def lists(requests: Iterable[Request]) -> list[Request]:
    """Where each list began; one that an API server put off (it has just started) comes again."""
    put_off = range(500, 600)
    return [
        each
        for each in requests
        if each.verb == "list" and not each.continues and each.code != 429 and each.code not in put_off
    ]


def most_listed(requests: Iterable[Request]) -> int:
    """How often the most listed was listed: one resource, or one part of it by labels (models' pods, gateways')."""
    return max(Counter((each.resource, each.selector) for each in lists(requests)).values(), default=0)


def busiest_second(requests: Iterable[Request]) -> int:
    """The most requests received within one second."""
    times = sorted(request.received for request in requests)
    return max((sum(1 for other in times if first <= other < first + 1) for first in times), default=0)
