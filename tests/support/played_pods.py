"""Plays the kubelet of one node, and in each pod a Triton and its agent: for integration tests without nodes.

A pod has an address such as 10.77.0.5, which nobody dials: its servers listen at 127.77.0.5, which every machine has.
`dialled` leads from one to the other.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import grpc
from aiohttp import web

from conch.api import names, pod
from conch.kube import resources
from conch.kube.client import Json, KubeClient
from conch.kube.errors import ApiError
from conch.kube.resources import Resource

NODE: Final = "played"
_LOOK_SECONDS: Final = 0.2
_ENDPOINTS_SECONDS: Final = 15.0
"""How long a pod that goes answers new requests, as an agent's preStop has it: who sends them may be paused."""
_INFER: Final = "/inference.GRPCInferenceService/ModelInfer"


def dialled(address: str) -> str:
    """Where the servers of a played pod listen."""
    return address.replace("10.77.", "127.77.", 1)


@dataclass
class PlayedPod:
    """One pod: what it answers, and what it has counted."""

    name: str
    uid: str
    workload: str
    address: str
    assignment: dict[str, Any]
    digest: str
    pin: dict[str, Any] | None = None
    answered: int = 0
    failed: int = 0
    in_flight: int = 0
    fails: bool = False
    runners: list[Any] = field(default_factory=list)

    @property
    def version(self) -> int:
        """The model's."""
        return int(self.assignment["version"])

    async def start(self) -> None:
        """Listen at the agent's and at Triton's ports."""
        for port, routes in (
            (pod.AGENT_PORT, [web.get("/status", self._status), web.put("/pin", self._take_pin)]),
            (pod.HTTP_PORT, [web.post("/{path:.*}", self._infer)]),
        ):
            app = web.Application()
            app.add_routes(routes)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, dialled(self.address), port).start()
            self.runners.append(runner)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Inference(self),))
        server.add_insecure_port(f"{dialled(self.address)}:{pod.GRPC_PORT}")
        await server.start()
        self.runners.append(server)

    async def stop(self) -> None:
        """Listen no more."""
        for runner in self.runners:
            await (runner.cleanup() if isinstance(runner, web.AppRunner) else runner.stop(1))

    async def answer(self) -> bytes:
        """One inference. Raises ValueError where the model fails."""
        self.in_flight += 1
        try:
            await asyncio.sleep(0.01)
        finally:
            self.in_flight -= 1
        if self.fails:
            self.failed += 1
            raise ValueError("the model fails")
        self.answered += 1
        return str(self.version).encode()

    async def _infer(self, request: web.Request) -> web.Response:
        await request.read()
        try:
            return web.Response(body=await self.answer())
        except ValueError as error:
            return web.Response(status=500, text=str(error))

    async def _take_pin(self, request: web.Request) -> web.Response:
        self.pin = (await request.json())["pin"]
        return web.Response()

    async def _status(self, _: web.Request) -> web.Response:
        pinned = self.pin or self.assignment.get("pin")
        counts = {"epoch": self.uid, "requests": self.answered, "failures": self.failed, "queueSeconds": 0}
        told = {
            "phase": "Ready" if pinned else "Fetched",
            "revision": self.assignment["revision"],
            "digest": self.digest,
            "pin": pinned,
            "inference": counts if pinned else None,
        }
        return web.json_response(told)


class _Inference(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types for it
    def __init__(self, played: PlayedPod) -> None:
        self._played = played

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Only inference is played."""
        if handler_call_details.method != _INFER:
            return None
        return grpc.unary_unary_rpc_method_handler(self._infer)

    async def _infer(self, _: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            return await self._played.answer()
        except ValueError as error:
            await context.abort(grpc.StatusCode.INTERNAL, str(error))
            raise


class PlayedNode:
    """Runs every pod of a namespace; `failing_versions` are those of models that answer with errors.

    `remove` deletes a pod of this name without any grace: only a kubelet may say that it has ended.
    """

    def __init__(self, client: KubeClient, namespace: str, *, remove: Callable[[str], object]) -> None:
        self._client = client
        self._remove = remove
        self._namespace = namespace
        self._made = 0
        self.pods: dict[str, PlayedPod] = {}
        self.failing_versions: set[int] = set()

    async def run(self) -> None:
        """Play until cancelled."""
        try:
            while True:
                await self._beat()
                pods = await self._list(resources.PODS)
                for live in pods:
                    if live["metadata"]["uid"] not in self.pods:
                        await self._begin(live)
                    elif "deletionTimestamp" in live["metadata"]:
                        await self._end(live)
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            for played in self.pods.values():
                with suppress(Exception):
                    await asyncio.wait_for(played.stop(), 30)

    def answered(self) -> Counter[int]:
        """Requests by version."""
        total: Counter[int] = Counter()
        for played in self.pods.values():
            total[played.version] += played.answered + played.failed
        return total

    async def _list(self, resource: Resource) -> list[Json]:
        return [
            item
            async for page in self._client.pages(resource, namespace=self._namespace)
            for item in page.get("items") or ()
        ]

    async def _beat(self) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        condition = {"type": "Ready", "status": "True", "reason": "Played", "lastHeartbeatTime": now}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "namespace": ""}}
        await self._client.apply(resources.NODES, node, field_manager="played")
        body = {**node, "status": {"conditions": [condition]}}
        await self._client.apply(resources.NODES, body, field_manager="played", subresource="status")

    async def _begin(self, live: Json) -> None:
        metadata = live["metadata"]
        workload = metadata.get("labels", {}).get(names.LABEL_WORKLOAD)
        if workload is None or "deletionTimestamp" in metadata:
            return
        owner = metadata["labels"][names.LABEL_MODEL_DEPLOYMENT]
        try:
            config = await self._client.get(
                resources.CONFIG_MAPS, self._namespace, names.workload_object(owner, workload)
            )
            assignment = json.loads(config["data"][pod.ASSIGNMENT_FILE])
            self._made += 1
            played = PlayedPod(
                name=metadata["name"],
                uid=metadata["uid"],
                workload=workload,
                address=f"10.77.{self._made // 200}.{self._made % 200 + 1}",
                assignment=assignment,
                digest="sha256:" + f"{assignment['version']:02x}" * 32,
                fails=assignment["version"] in self.failing_versions,
            )
        except ApiError as error:
            if not error.not_found:
                raise
            return
        # Stopped with all others, whatever comes.
        self.pods[played.uid] = played
        await played.start()
        try:
            await self._bind(played.name)
            await self._say_ready(played)
        except ApiError as error:
            if not (error.not_found or error.conflict):
                raise
            await self.pods.pop(played.uid).stop()

    async def _bind(self, name: str) -> None:
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": self._namespace},
            "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
        }
        resource = Resource(group="", version="v1", plural=f"pods/{name}/binding", kind="Binding")
        await self._client.create(resource, binding, field_manager="played")

    async def _say_ready(self, played: PlayedPod) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        conditions = [
            {"type": type_, "status": "True", "lastTransitionTime": now} for type_ in ("Ready", "ContainersReady")
        ]
        status = {
            "phase": "Running",
            "podIP": played.address,
            "podIPs": [{"ip": played.address}],
            "conditions": conditions,
        }
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": played.name, "namespace": self._namespace},
            "status": status,
        }
        await self._client.apply(resources.PODS, body, field_manager="played", subresource="status")

    async def _end(self, live: Json) -> None:
        """As a kubelet: after the time in which others learn that it goes, and once nothing is in flight."""
        played = self.pods[live["metadata"]["uid"]]
        leaves = datetime.fromisoformat(live["metadata"]["deletionTimestamp"])
        asked = leaves.timestamp() - live["metadata"].get("deletionGracePeriodSeconds", 0)
        if datetime.now(UTC).timestamp() - asked < _ENDPOINTS_SECONDS or played.in_flight:
            return
        await played.stop()
        await asyncio.to_thread(self._remove, played.name)
