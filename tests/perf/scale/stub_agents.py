"""What the agent of every fake model server answers. A question tells by the address it was sent to whom it asks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from conch.api import names, pod
from conch.api.agent_orders import PinOrder
from conch.api.agent_report import AgentPhase, AgentReport, GoldenOutcome, GoldenReport
from conch.api.assignment import Assignment, Pin
from conch.kube.client import KubeClient
from conch.kube.reflector import ObjectKey, Reflector
from conch.kube.resources import CONFIG_MAPS, PODS

_DIGEST = "sha256:" + "0" * 64
_SELECTOR = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"

_Pod = tuple[str, str]
"""(address, workload)"""
_Assigned = tuple[str, Assignment]
"""(workload, what is assigned to it)"""


class StubAgents:
    """Knows which pod has which address, what its workload was assigned, and which pin it was told.

    As real ones they have fetched at once, and load when they know the pin; the models have no golden set. While
    `speaking` is not set they take connections and never answer.
    """

    def __init__(self, client: KubeClient) -> None:
        self._workload_by_address: dict[str, str] = {}
        self._pods: Reflector[_Pod] = Reflector(
            client, PODS, project=_pod, on_change=self._pod_changed, label_selector=_SELECTOR
        )
        self._pin_by_address: dict[str, Pin] = {}
        self._assignment_by_workload: dict[str, Assignment] = {}
        self._assignments: Reflector[_Assigned] = Reflector(
            client, CONFIG_MAPS, project=_assignment, on_change=self._assignment_changed, label_selector=_SELECTOR
        )
        self.speaking = asyncio.Event()
        self.speaking.set()

    async def run(self) -> None:
        """Follow until cancelled."""
        await asyncio.gather(self._pods.run(), self._assignments.run())

    @property
    def routes(self) -> list[web.RouteDef]:
        """What is answered at the agents' port."""
        return [web.get("/status", self._status), web.put("/pin", self._pin)]

    async def _status(self, request: web.Request) -> web.Response:
        await self.speaking.wait()
        address = _asked(request)
        assignment = self._assignment_by_workload.get(self._workload_by_address.get(address, ""))
        if assignment is None:
            return web.Response(status=503)
        return web.json_response(self.report(address, assignment).to_wire())

    def report(self, address: str, assignment: Assignment) -> AgentReport:
        """What the agent at this address says."""
        pin = self._pin_by_address.get(address, assignment.pin)
        return AgentReport(
            phase=AgentPhase.READY if pin else AgentPhase.FETCHED,
            revision=assignment.revision,
            digest=_DIGEST,
            pin=pin,
            golden=GoldenReport(outcome=GoldenOutcome.ABSENT) if pin else None,
        )

    async def _pin(self, request: web.Request) -> web.Response:
        await self.speaking.wait()
        self._pin_by_address[_asked(request)] = PinOrder.model_validate_json(await request.read()).pin
        return web.Response(status=204)

    def _pod_changed(self, key: ObjectKey, before: _Pod | None, after: _Pod | None) -> None:
        del key
        if before is not None:
            self._workload_by_address.pop(before[0], None)
        if before is not None and (after is None or after[0] != before[0]):
            self._pin_by_address.pop(before[0], None)
        if after is not None:
            self._workload_by_address[after[0]] = after[1]

    def _assignment_changed(self, key: ObjectKey, before: _Assigned | None, after: _Assigned | None) -> None:
        del key
        if after is not None:
            self._assignment_by_workload[after[0]] = after[1]
        elif before is not None:
            self._assignment_by_workload.pop(before[0], None)


def _asked(request: web.Request) -> str:
    """The address that was asked."""
    assert request.transport is not None
    return str(request.transport.get_extra_info("sockname")[0])


def _pod(live: Mapping[str, Any]) -> _Pod:
    return live.get("status", {}).get("podIP", ""), live["metadata"]["labels"][names.LABEL_WORKLOAD]


def _assignment(live: Mapping[str, Any]) -> _Assigned:
    text = live["data"][pod.ASSIGNMENT_FILE]
    return live["metadata"]["labels"][names.LABEL_WORKLOAD], Assignment.model_validate_json(text)
