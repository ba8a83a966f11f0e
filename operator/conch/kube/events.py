"""Events: what happened to an object, for people who run `kubectl describe`."""

from datetime import datetime
from typing import Any

from conch.api import names

_NOTE_BYTES = 1024


def _bounded(note: str) -> str:
    """The API server counts bytes."""
    return note.encode()[:_NOTE_BYTES].decode(errors="ignore")


def event(
    *, namespace: str, name: str, uid: str, reason: str, message: str, warning: bool, now: datetime, instance: str
) -> dict[str, Any]:
    """An Event about a ModelDeployment, as the body of a create."""
    stamp = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{int(now.timestamp() * 1e6):x}", "namespace": namespace},
        "eventTime": stamp,
        "reportingController": f"{names.GROUP}/operator",
        "reportingInstance": instance[:128],
        "action": "Reconcile",
        "reason": reason,
        "note": _bounded(message),
        "type": "Warning" if warning else "Normal",
        "regarding": {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "namespace": namespace,
            "name": name,
            "uid": uid,
        },
    }
