"""What the operator knows, and which object a change concerns: through label changes, namesakes and late news."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from conch.api import names
from conch.app.cluster_view import ClusterView
from conch.core.observed_child import ChildId, ChildKind
from conch.kube import resources
from conch.kube.client import KubeClient
from conch.kube.reflector import ObjectKey
from conch.kube.resources import Resource

KEY = ("ns", "sentiment")
CHILDREN = "app.kubernetes.io/managed-by=conch,conch.dev/model-deployment"
GATEWAYS = "app.kubernetes.io/name=conch,app.kubernetes.io/component=gateway"


class FakeClient:
    """Lists and watches what the test has in store."""

    def __init__(self) -> None:
        self.lists: dict[Resource, list[dict[str, Any]]] = {}
        self.events: dict[tuple[Resource, str], asyncio.Queue[tuple[str, Any]]] = {}
        self.selectors: dict[Resource, set[str]] = {}

    async def pages(self, resource: Resource, *, label_selector: str = "") -> AsyncIterator[dict[str, Any]]:
        self.selectors.setdefault(resource, set()).add(label_selector)
        yield {"metadata": {"resourceVersion": "100"}, "items": self.lists.get(resource, [])}

    def queue(self, resource: Resource, label_selector: str) -> asyncio.Queue[tuple[str, Any]]:
        return self.events.setdefault((resource, label_selector), asyncio.Queue())

    async def watch(self, resource: Resource, *, label_selector: str = "", **_: str) -> AsyncIterator[tuple[str, Any]]:
        while True:
            yield await self.queue(resource, label_selector).get()


class Scene:
    """A view that follows a fake cluster."""

    def __init__(self) -> None:
        self.client = FakeClient()
        self.changed: list[ObjectKey] = []
        self.view = ClusterView(
            cast(KubeClient, self.client),
            on_change=self.changed.append,
            namespace="conch-system",
            gateway_ports=range(10_000, 10_100),
        )

    async def __aenter__(self) -> "Scene":
        self._tasks = [asyncio.ensure_future(reflector.run()) for reflector in self.view.reflectors]
        await self.view.synced()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def happen(self, resource: Resource, kind: str, live: dict[str, Any]) -> None:
        """An event, and the time it takes to be taken in."""
        self.changed.clear()
        labels = live["metadata"].get("labels", {})
        selector = CHILDREN if names.LABEL_MODEL_DEPLOYMENT in labels else GATEWAYS if labels else ""
        self.client.queue(resource, selector).put_nowait((kind, live))
        for _ in range(5):
            await asyncio.sleep(0)


def _labelled(name: str, version: int, *, owner: str = "sentiment", namespace: str = "ns") -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "labels": {names.LABEL_MODEL_DEPLOYMENT: owner},
        }
    }


def _object(version: int, *, uid: str = "first", name: str = "sentiment") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": str(version)},
        "spec": {"model": {"version": version, "source": {"uri": "https://models.example/a.onnx"}}},
    }


def _version(view: ClusterView) -> str | None:
    known = view.model_deployment(KEY)
    return known.resource_version if known else None


async def test_only_objects_with_both_labels_are_asked_for() -> None:
    async with Scene() as scene:
        selectors = dict(scene.client.selectors)
        assert selectors.pop(resources.NODES) == {""}
        assert selectors.pop(resources.PODS) == {CHILDREN, GATEWAYS}
        assert all(each == {CHILDREN} for each in selectors.values())


async def test_secrets_are_never_asked_for() -> None:
    scene = Scene()
    async with scene:
        assert resources.SECRETS not in scene.client.selectors


async def test_children_and_pods_are_found_by_their_object() -> None:
    async with Scene() as scene:
        await scene.happen(resources.SERVICES, "ADDED", _labelled("sentiment", 101))
        assert scene.changed == [KEY]
        await scene.happen(resources.PODS, "ADDED", _labelled("p", 102))
        assert list(scene.view.children(KEY)) == [ChildId(kind=ChildKind.SERVICE, name="sentiment")]
        assert [pod.name for pod in scene.view.pods(KEY)] == ["p"]


async def test_a_pod_and_a_child_of_the_same_name_are_both_kept() -> None:
    async with Scene() as scene:
        await scene.happen(resources.PODS, "ADDED", _labelled("same", 101))
        await scene.happen(resources.SERVICES, "ADDED", _labelled("same", 102))
        await scene.happen(resources.PODS, "DELETED", _labelled("same", 103))
        assert (len(scene.view.children(KEY)), scene.view.pods(KEY)) == (1, ())


async def test_objects_of_another_namespace_are_not_mixed_in() -> None:
    async with Scene() as scene:
        await scene.happen(resources.SERVICES, "ADDED", _labelled("sentiment", 101, namespace="other"))
        assert scene.view.children(KEY) == {}
        assert len(scene.view.children(("other", "sentiment"))) == 1


async def test_pods_come_by_name() -> None:
    async with Scene() as scene:
        for number, name in enumerate(("c", "a", "b")):
            await scene.happen(resources.PODS, "ADDED", _labelled(name, 101 + number))
        assert [pod.name for pod in scene.view.pods(KEY)] == ["a", "b", "c"]


async def test_a_child_that_is_given_to_another_object_leaves_the_first_and_tells_both() -> None:
    async with Scene() as scene:
        await scene.happen(resources.SERVICES, "ADDED", _labelled("s", 101))
        await scene.happen(resources.SERVICES, "MODIFIED", _labelled("s", 102, owner="other"))
        assert set(scene.changed) == {KEY, ("ns", "other")}
        assert scene.view.children(KEY) == {}
        assert len(scene.view.children(("ns", "other"))) == 1


async def test_a_child_that_is_gone_is_told_and_forgotten() -> None:
    async with Scene() as scene:
        await scene.happen(resources.SERVICES, "ADDED", _labelled("s", 101))
        await scene.happen(resources.SERVICES, "DELETED", _labelled("s", 102))
        assert (scene.changed, scene.view.children(KEY)) == ([KEY], {})


async def test_the_answer_to_a_write_is_known_at_once() -> None:
    async with Scene() as scene:
        scene.view.put_child(ChildKind.SERVICE, _labelled("s", 101))
        assert len(scene.view.children(KEY)) == 1


def test_the_answer_to_the_write_of_a_secret_is_not_kept() -> None:
    view = Scene().view
    view.put_child(ChildKind.SECRET, _labelled("s", 101))
    assert view.children(KEY) == {}


def test_a_newer_state_of_an_object_replaces_an_older_one() -> None:
    view = Scene().view
    view.put_model_deployment(_object(1))
    view.put_model_deployment(_object(2))
    assert (_version(view), view.known()) == ("2", (KEY,))


def test_an_older_state_that_comes_late_is_ignored() -> None:
    view = Scene().view
    view.put_model_deployment(_object(10))
    view.put_model_deployment(_object(9))
    assert _version(view) == "10"


def test_the_echo_of_a_write_is_no_news_and_not_even_read() -> None:
    view = Scene().view
    assert view.put_model_deployment(_object(10))
    known = view.model_deployment(KEY)
    assert not view.put_model_deployment(_object(10))
    assert view.model_deployment(KEY) is known


def test_a_namesake_replaces_the_object_it_follows() -> None:
    view = Scene().view
    view.put_model_deployment(_object(10))
    view.put_model_deployment(_object(20, uid="second"))
    known = view.model_deployment(KEY)
    assert known is not None
    assert known.uid == "second"


def test_a_late_word_that_the_earlier_object_is_gone_spares_its_namesake() -> None:
    view = Scene().view
    view.put_model_deployment(_object(20, uid="second"))
    view.drop_model_deployment(KEY, "first")
    assert _version(view) == "20"
    view.drop_model_deployment(KEY, "second")
    assert view.known() == ()


def test_dropping_what_is_not_known_is_nothing() -> None:
    Scene().view.drop_model_deployment(KEY, "first")


@pytest.mark.parametrize("alive", [frozenset({"first"}), frozenset({"other"})])
def test_a_sweep_drops_what_a_list_did_not_show(alive: frozenset[str]) -> None:
    view = Scene().view
    view.put_model_deployment(_object(1))
    gone = view.drop_all_but(view.uids(), alive)
    assert gone == (() if "first" in alive else (KEY,))
    assert view.known() == ((KEY,) if "first" in alive else ())


def test_a_sweep_spares_what_came_after_its_list_was_asked_for() -> None:
    view = Scene().view
    before = view.uids()
    view.put_model_deployment(_object(1))
    assert view.drop_all_but(before, frozenset()) == ()
    assert view.known() == (KEY,)


def _gateway(name: str, version: int, *, namespace: str = "conch-system", ready: bool = True) -> dict[str, Any]:
    condition = {"type": "Ready", "status": str(ready)}
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "labels": dict(names.GATEWAY_LABELS),
        },
        "status": {"podIP": "10.1.0.1", "conditions": [condition]},
    }


async def test_a_change_of_the_gateways_concerns_every_object() -> None:
    async with Scene() as scene:
        scene.view.put_model_deployment(_object(1))
        await scene.happen(resources.PODS, "ADDED", _gateway("b", 101))
        assert scene.changed == [KEY]
        await scene.happen(resources.PODS, "ADDED", _gateway("a", 102, ready=False))
        assert [(each.name, each.ready) for each in scene.view.gateways()] == [("a", False), ("b", True)]


async def test_a_pod_of_another_namespace_is_no_gateway_whatever_its_labels_say() -> None:
    async with Scene() as scene:
        scene.view.put_model_deployment(_object(1))
        await scene.happen(resources.PODS, "ADDED", _gateway("mine", 101, namespace="team-a"))
        assert scene.view.gateways() == ()
        assert scene.changed == []


def _node(name: str, version: int, *, cordoned: bool) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}, "spec": {"unschedulable": cordoned}}


async def test_a_cordoned_node_concerns_the_objects_with_pods_on_it() -> None:
    async with Scene() as scene:
        pod = _labelled("pod", 101)
        await scene.happen(resources.PODS, "ADDED", {**pod, "spec": {"nodeName": "gpu-1"}})
        await scene.happen(resources.PODS, "ADDED", _labelled("elsewhere", 102, owner="other"))
        await scene.happen(resources.NODES, "ADDED", _node("gpu-1", 103, cordoned=False))
        assert scene.changed == []
        await scene.happen(resources.NODES, "MODIFIED", _node("gpu-1", 104, cordoned=True))
        assert scene.changed == [KEY]
        assert [pod.node_cordoned for pod in scene.view.pods(KEY)] == [True]
