"""What is told of a namespace and of Conch when a test in it failed, before all of it is deleted."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from tests.cluster.client import Cluster
from tests.e2e.operators import SELECTOR
from tests.support.installation import NAMESPACE

SECONDS: Final = 20.0
"""For all of it: the cluster may be what failed."""
LINES: Final = 80
"""All of them; most failures need 60."""
_LINE: Final = 300
_LOGS: Final = 40
_EVENTS: Final = 15
_LOG_LINES: Final = 15


def describe(cluster: Cluster, namespace: str, *, seconds: float = SECONDS) -> str:
    """The objects of the namespace, their pods and Events, the operators' logs and their Lease; never raises."""
    end = time.monotonic() + seconds
    looker = _Looker(cluster, end)
    parts: tuple[tuple[str, Callable[[], Iterator[str]]], ...] = (
        ("model deployments", lambda: _model_deployments(looker, namespace)),
        ("pods", lambda: _pods(looker, namespace)),
        ("lease", lambda: _lease(looker)),
        (f"newest {_EVENTS} events", lambda: _events(looker, namespace)),
        ("operators", lambda: _logs(looker)),
    )
    lines: list[str] = []
    told: list[str] = []
    for name, part in parts:
        told = [f"{name}:"]
        try:
            told += (f"  {line[:_LINE]}" for text in part() for line in text.splitlines())
        except Exception as error:  # whatever is wrong, the failure of the test is what is to be read
            told.append(f"  not known: {error!r}"[:_LINE])
        lines += told
    logs = told[:1] + told[1:][-_LOGS:]
    rest = lines[: len(lines) - len(told)]
    room = LINES - len(logs)
    return "\n".join((*rest[:room], *([f"({len(rest) - room} lines left out)"] if len(rest) > room else ()), *logs))


class _Looker:
    """Asks the cluster as long as there is time."""

    def __init__(self, cluster: Cluster, end: float) -> None:
        self._cluster = cluster
        self._end = end

    def text(self, *words: str) -> str:
        """What kubectl prints."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("no time is left to ask")
        return self._cluster.kubectl(*words, timeout=left).stdout

    def items(self, kind: str, namespace: str, *words: str) -> list[dict[str, Any]]:
        """The objects of a kind."""
        items: list[dict[str, Any]] = json.loads(self.text("get", kind, "-n", namespace, *words, "-o", "json"))["items"]
        return items


def _model_deployments(looker: _Looker, namespace: str) -> Iterator[str]:
    for live in looker.items("mdep", namespace):
        status = live.get("status", {})
        seen = f"generation {live['metadata'].get('generation')}, observed {status.get('observedGeneration')}"
        yield f"{live['metadata']['name']} ({seen})"
        for name in ("rollout", "rejected", "traffic", "command"):
            yield f"  {name}: {json.dumps(status.get(name))}"
        for each in status.get("conditions", ()):
            yield f"  {each['type']}={each['status']} {each.get('reason')}: {each.get('message')}"


def _pods(looker: _Looker, namespace: str) -> Iterator[str]:
    for live in looker.items("pods", namespace):
        status = live.get("status", {})
        listed = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
        containers = (
            f"{each['name']} {'ready' if each.get('ready') else 'not ready'} x{each.get('restartCount', 0)} "
            f"{json.dumps(each.get('state'))}"
            for each in listed
        )
        leaving = ", leaving" if "deletionTimestamp" in live["metadata"] else ""
        yield f"{live['metadata']['name']} {status.get('phase')}{leaving}: {'; '.join(containers)}"


def _lease(looker: _Looker) -> Iterator[str]:
    yield json.dumps(json.loads(looker.text("get", "lease", "conch-operator", "-n", NAMESPACE, "-o", "json"))["spec"])


def _events(looker: _Looker, namespace: str) -> Iterator[str]:
    def moment(live: dict[str, Any]) -> str:
        series = live.get("series") or {}
        told = series.get("lastObservedTime") or live.get("deprecatedLastTimestamp") or live.get("eventTime")
        return str(told or live["metadata"].get("creationTimestamp"))

    for live in sorted(looker.items("events.v1.events.k8s.io", namespace), key=moment)[-_EVENTS:]:
        about = live.get("regarding", {})
        yield f"{moment(live)} {about.get('kind')}/{about.get('name')} {live.get('reason')}: {live.get('note')}"


def _logs(looker: _Looker) -> Iterator[str]:
    for live in looker.items("pods", NAMESPACE, "-l", SELECTOR):
        name = live["metadata"]["name"]
        yield f"{name} {live.get('status', {}).get('phase')}:"
        try:
            yield looker.text("logs", name, "-n", NAMESPACE, f"--tail={_LOG_LINES}")
        except Exception as error:  # one that does not run hides no other
            yield f"not known: {error!r}"
