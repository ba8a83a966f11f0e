"""Everything the operator knows of the cluster, and which ModelDeployment each change concerns."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from conch.api import names
from conch.api.model_deployment import ModelDeployment, parse
from conch.app.optional_kinds import OptionalKinds
from conch.app.port_book import PortBook
from conch.app.projections import CHILD_RESOURCES, project_child, project_gateway_pod, project_node, project_pod
from conch.core.gateway_api import wanted_kinds
from conch.core.observed import ObservedGateway
from conch.core.observed_child import ROUTE_KINDS, ChildId, ChildKind, ObservedChild
from conch.core.observed_pod import ObservedPod
from conch.kube import resources
from conch.kube.client import KubeClient
from conch.kube.reflector import ObjectKey, Reflector

_WATCHED: Final = tuple(kind for kind in ChildKind if kind is not ChildKind.SECRET)
_GONE_REMEMBERED: Final = 256
_GATEWAYS: Final = ",".join(f"{key}={value}" for key, value in names.GATEWAY_LABELS.items())
_SELECTOR: Final = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY},{names.LABEL_MODEL_DEPLOYMENT}"


class ClusterView:
    """Children, pods, gateways and nodes by reflectors of our own; the ModelDeployments are handed in by the edge.

    `on_change(key)` is called with the ModelDeployment that a change concerns. `namespace` is the operator's own: pods
    elsewhere are no gateways, whatever their labels say.
    """

    def __init__(
        self, client: KubeClient, on_change: Callable[[ObjectKey], None], *, namespace: str, gateway_ports: range
    ) -> None:
        self._on_change = on_change
        self._namespace = namespace
        self.ports = PortBook(gateway_ports)
        self._objects: dict[ObjectKey, ModelDeployment] = {}
        self._gone: deque[str] = deque(maxlen=_GONE_REMEMBERED)
        self._by_owner: dict[ObjectKey, set[tuple[ChildKind | None, str]]] = {}
        self._children: dict[ChildKind, Reflector[tuple[str, ObservedChild]]] = {
            kind: Reflector(
                client,
                CHILD_RESOURCES[kind],
                project=partial(_labelled_child, kind),
                on_change=partial(self._child_changed, kind),
                label_selector=_SELECTOR,
            )
            for kind in _WATCHED
        }
        self.gateway_api = OptionalKinds(
            client,
            {kind: (CHILD_RESOURCES[kind], self._children[kind]) for kind in ROUTE_KINDS},
            label_selector=_SELECTOR,
            is_wanted=lambda: any(True for _ in self._routed()),
            on_change=self._gateway_api_changed,
        )
        self._pods: Reflector[tuple[str, ObservedPod]] = Reflector(
            client,
            resources.PODS,
            project=_labelled_pod,
            on_change=partial(self._child_changed, None),
            label_selector=_SELECTOR,
        )
        self._gateways: Reflector[ObservedGateway] = Reflector(
            client,
            resources.PODS,
            project=project_gateway_pod,
            on_change=self._gateway_changed,
            label_selector=_GATEWAYS,
        )
        self._nodes: Reflector[bool] = Reflector(
            client, resources.NODES, project=project_node, on_change=self._node_changed
        )

    @property
    def reflectors(self) -> Iterable[Reflector[Any]]:
        """What has to run for this view to be true; `gateway_api` runs those of kinds that a cluster need not know."""
        children = (reflector for kind, reflector in self._children.items() if kind not in ROUTE_KINDS)
        return (*children, self._pods, self._gateways, self._nodes)

    async def synced(self) -> None:
        """Wait until every resource has been listed once."""
        await asyncio.gather(*(reflector.synced.wait() for reflector in self.reflectors))

    def known(self) -> tuple[ObjectKey, ...]:
        """All known ModelDeployments."""
        return tuple(self._objects)

    def model_deployment(self, key: ObjectKey) -> ModelDeployment | None:
        """The newest known state of one object."""
        return self._objects.get(key)

    def put_model_deployment(self, body: Mapping[str, Any]) -> bool:
        """Take in an object from the edge, or the answer to a write of ours; False when as new a one is known.

        The watch repeats every write of ours, so what is no news is told by its version alone and never parsed.
        """
        metadata = body["metadata"]
        key = (metadata["namespace"], metadata["name"])
        known = self._objects.get(key)
        if metadata["uid"] in self._gone:
            # A late answer to a write of ours.
            return False
        # Across namesakes too: events of an object and of its successor may arrive in any order.
        if known is not None and int(metadata["resourceVersion"]) <= int(known.resource_version):
            return False
        if known is not None and known.uid != metadata["uid"]:
            self.ports.forget(known.uid)
        self._objects[key] = parse(body)
        self.ports.note(self._objects[key])
        return True

    def drop_model_deployment(self, key: ObjectKey, uid: str) -> None:
        """Forget an object that is gone (but not its namesake)."""
        self._gone.append(uid)
        self.ports.forget(uid)
        known = self._objects.get(key)
        if known is not None and known.uid == uid:
            del self._objects[key]

    def uids(self) -> Mapping[ObjectKey, str]:
        """The uid of every known ModelDeployment."""
        return {key: known.uid for key, known in self._objects.items()}

    def drop_all_but(self, before: Mapping[ObjectKey, str], alive: frozenset[str]) -> tuple[ObjectKey, ...]:
        """Forget those of the objects known before a list was asked for that it did not show; returns them."""
        gone = tuple(key for key, uid in before.items() if uid not in alive and self.uids().get(key) == uid)
        for key in gone:
            self.drop_model_deployment(key, before[key])
        return gone

    def put_child(self, kind: ChildKind, live: Mapping[str, Any]) -> None:
        """Take in the API server's answer to a write, so that the next plan does not write it again."""
        if (reflector := self._children.get(kind)) is not None:
            reflector.put(live)

    def children(self, key: ObjectKey) -> dict[ChildId, ObservedChild]:
        """The labelled objects that concern one ModelDeployment."""
        namespace, _ = key
        found = {}
        for kind, name in self._by_owner.get(key, ()):
            if kind is not None and (entry := self._children[kind].get((namespace, name))) is not None:
                found[entry[1].id] = entry[1]
        return found

    def pods(self, key: ObjectKey) -> tuple[ObservedPod, ...]:
        """The pods of one ModelDeployment, by name."""
        namespace, _ = key
        pods = (
            entry[1]
            for kind, name in self._by_owner.get(key, ())
            if kind is None and (entry := self._pods.get((namespace, name))) is not None
        )
        return tuple(
            replace(pod, node_cordoned=bool(self._nodes.get(("", pod.node))))
            for pod in sorted(pods, key=lambda pod: pod.name)
        )

    def gateways(self) -> tuple[ObservedGateway, ...]:
        """The gateway pods, by name."""
        mine = (pod for (namespace, _), pod in self._gateways.items() if namespace == self._namespace)
        return tuple(sorted(mine, key=lambda gateway: gateway.name))

    def all_pods(self) -> Iterator[tuple[ObjectKey, ObservedPod]]:
        """Every pod and the ModelDeployment that its label names; not to be walked over an await."""
        for (namespace, _), (owner, observed) in self._pods.items():
            yield (namespace, owner), observed

    def _routed(self) -> Iterator[ObjectKey]:
        """The objects that ask for routes of the Gateway API."""
        return (key for key, owner in self._objects.items() if wanted_kinds(owner))

    def _gateway_api_changed(self) -> None:
        for owner in tuple(self._routed()):
            self._on_change(owner)

    def _gateway_changed(self, key: ObjectKey, *_: ObservedGateway | None) -> None:
        """Every object's slice lists the gateways."""
        if key[0] == self._namespace:
            for owner in self._objects:
                self._on_change(owner)

    def _node_changed(self, key: ObjectKey, before: bool | None, after: bool | None) -> None:
        if bool(before) != bool(after):
            for owner in {owner for owner, pod in self.all_pods() if pod.node == key[1]}:
                self._on_change(owner)

    def _child_changed(
        self, kind: ChildKind | None, key: ObjectKey, before: tuple[str, Any] | None, after: tuple[str, Any] | None
    ) -> None:
        namespace, name = key
        for owner in {entry[0] for entry in (before, after) if entry is not None}:
            index = self._by_owner.setdefault((namespace, owner), set())
            if after is not None and after[0] == owner:
                index.add((kind, name))
            else:
                index.discard((kind, name))
                if not index:
                    del self._by_owner[(namespace, owner)]
            self._on_change((namespace, owner))


def _labelled_child(kind: ChildKind, live: Mapping[str, Any]) -> tuple[str, ObservedChild]:
    return live["metadata"]["labels"][names.LABEL_MODEL_DEPLOYMENT], project_child(kind, live)


def _labelled_pod(live: Mapping[str, Any]) -> tuple[str, ObservedPod]:
    return live["metadata"]["labels"][names.LABEL_MODEL_DEPLOYMENT], project_pod(live)
