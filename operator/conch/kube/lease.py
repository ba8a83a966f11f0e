"""Reads and writes the Lease that says which operator leads."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from conch.kube.client import KubeClient
from conch.kube.errors import ApiError
from conch.kube.resources import LEASES


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """Who holds the Lease. `version` is the precondition of the next write; None: there is no Lease yet."""

    holder: str = ""
    transitions: int = 0
    version: str | None = None


class LeaseStore:
    """One Lease in one namespace."""

    def __init__(self, client: KubeClient, *, namespace: str, name: str, duration_seconds: int) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._duration_seconds = duration_seconds

    async def read(self) -> LeaseRecord:
        """The Lease as it is now."""
        try:
            live = await self._client.get(LEASES, self._namespace, self._name)
        except ApiError as error:
            if error.not_found:
                return LeaseRecord()
            raise
        return _record(live)

    async def write(self, *, holder: str, transitions: int, version: str | None, now: datetime) -> LeaseRecord:
        """Take, renew or release (holder "") the Lease; raises a conflict when somebody else wrote since."""
        stamp = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        body: dict[str, Any] = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": self._duration_seconds,
                "leaseTransitions": transitions,
                "renewTime": stamp,
            },
        }
        if version is None:
            return _record(await self._client.create(LEASES, body, field_manager="conch-lease"))
        body["metadata"]["resourceVersion"] = version
        return _record(await self._client.replace(LEASES, body))


def _record(live: dict[str, Any]) -> LeaseRecord:
    spec = live.get("spec", {})
    return LeaseRecord(
        holder=spec.get("holderIdentity") or "",
        transitions=spec.get("leaseTransitions") or 0,
        version=live["metadata"]["resourceVersion"],
    )
