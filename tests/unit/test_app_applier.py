"""Carrying out: only what is ours is written, every write asks the fence, refusals become facts."""

import base64
from typing import Any, cast

import pytest

from conch.api import names
from conch.app.applier import Applier
from conch.app.cluster_view import ClusterView
from conch.app.facts import Facts
from conch.app.sample_book import SampleBook
from conch.core.actions import (
    Action,
    Apply,
    Delete,
    DeleteEndpoints,
    EnsureAdminKey,
    MarkForRemoval,
    OpenWindow,
    ShowChange,
)
from conch.core.desired.admin_key_secret import admin_key_secret
from conch.core.desired.service import direct_service
from conch.core.observed_child import ChildId, ChildKind, Controller
from conch.kube.client import KubeClient
from conch.kube.errors import ApiError, ApiUnavailableError
from conch.kube.resources import Resource
from tests.sim.world import UID, World

KEY = b"installation"
OWNER = World(spec={"model": {"version": 1, "source": {"uri": "https://models.example/a.onnx"}}}).owner
SERVICE = direct_service(OWNER, "w1")
SECRET = admin_key_secret(OWNER)
MINE = {"kind": names.KIND, "name": "sentiment", "uid": UID, "controller": True}
DELETE = Delete(id=SERVICE.id, uid="u", resource_version="7")
ENSURE = EnsureAdminKey(desired=SECRET)


def _error(status: int, message: str = "no") -> ApiError:
    return ApiError(status, "Reason", message, what="call")


class NotAllowedError(Exception):
    """What the fence raises."""


class Scene:
    """An applier, the calls it makes and the answers it gets."""

    def __init__(self, *, met: Any = None, answer: Exception | None = None) -> None:
        self.calls: list[str] = []
        self.managers: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.kept: list[tuple[ChildKind, dict[str, Any]]] = []
        self.met = met if met is not None else _error(404)
        self.answer = answer
        self.fenced = False
        self.facts = Facts(uid=UID)
        self.samples = SampleBook()
        scene = cast(Any, self)
        self._applier = Applier(
            cast(KubeClient, scene), cast(ClusterView, scene), self.samples, installation_key=KEY, fence=self._fence
        )

    async def carry_out(self, action: Action) -> None:
        await self._applier.carry_out(action, OWNER, self.facts)

    def _fence(self) -> float:
        self.calls.append("fence")
        if self.fenced:
            raise NotAllowedError
        return 9.5

    async def _call(self, verb: str, resource: Resource, body: dict[str, Any]) -> dict[str, Any]:
        self.calls.append(f"{verb} {resource.kind}")
        self.bodies.append(body)
        if self.answer:
            raise self.answer
        return {"answer": verb}

    async def get_metadata(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        assert (namespace, name) == ("default", "sentiment")
        self.calls.append(f"get {resource.kind}")
        if isinstance(self.met, Exception):
            raise self.met
        return {"metadata": self.met}

    async def apply(
        self, resource: Resource, body: dict[str, Any], *, field_manager: str, within_seconds: float
    ) -> dict[str, Any]:
        assert within_seconds == 9.5
        self.managers.append(field_manager)
        return await self._call("apply", resource, body)

    async def create(
        self, resource: Resource, body: dict[str, Any], *, field_manager: str, within_seconds: float
    ) -> dict[str, Any]:
        assert (field_manager, within_seconds) == (names.FIELD_MANAGER, 9.5)
        return await self._call("create", resource, body)

    async def delete(self, resource: Resource, namespace: str, name: str, **preconditions: Any) -> None:
        assert (namespace, name) == ("default", "sentiment")
        assert preconditions == {"uid": "u", "resource_version": "7", "within_seconds": 9.5}
        await self._call("delete", resource, {})

    def put_child(self, kind: ChildKind, live: dict[str, Any]) -> None:
        self.kept.append((kind, live))


NEW = Apply(desired=SERVICE, uid=None)
KNOWN = Apply(desired=SERVICE, uid="u")


async def test_a_child_that_is_nowhere_is_written_without_a_uid() -> None:
    scene = Scene()
    await scene.carry_out(NEW)
    assert scene.calls == ["get Service", "fence", "apply Service"]
    assert scene.bodies == [SERVICE.body]


async def test_a_child_of_ours_that_was_not_known_is_written_as_exactly_that_object() -> None:
    scene = Scene(met={"uid": "met", "ownerReferences": [MINE]})
    await scene.carry_out(NEW)
    assert scene.bodies[0]["metadata"] == {**SERVICE.body["metadata"], "uid": "met"}


async def test_a_known_child_is_written_as_exactly_that_object_without_looking() -> None:
    scene = Scene()
    await scene.carry_out(KNOWN)
    assert scene.calls == ["fence", "apply Service"]
    assert scene.bodies[0]["metadata"]["uid"] == "u"
    assert "uid" not in SERVICE.body["metadata"], "what is desired is not changed on the way"


@pytest.mark.parametrize(
    ("owners", "controller"),
    [
        ([], None),
        ([{**MINE, "controller": False}], None),
        ([{**MINE, "uid": "earlier"}], Controller(kind=names.KIND, name="sentiment", uid="earlier")),
        ([{**MINE, "kind": "Other", "uid": "x"}], Controller(kind="Other", name="sentiment", uid="x")),
    ],
    ids=["nobody's", "owned but not controlled", "an earlier namesake's", "another controller's"],
)
async def test_a_strangers_object_is_noted_and_not_written(owners: list[Any], controller: Controller | None) -> None:
    scene = Scene(met={"uid": "met", "ownerReferences": owners})
    await scene.carry_out(NEW)
    assert scene.calls == ["get Service"]
    assert scene.facts.strangers == {SERVICE.id: controller}


async def test_the_answer_to_a_write_is_handed_on() -> None:
    scene = Scene()
    await scene.carry_out(NEW)
    assert scene.kept == [(ChildKind.SERVICE, {"answer": "apply"})]


@pytest.mark.parametrize("action", [NEW, KNOWN, DELETE, ENSURE])
async def test_nothing_is_written_once_the_fence_is_closed(action: Action) -> None:
    scene = Scene()
    scene.fenced = True
    with pytest.raises(NotAllowedError):
        await scene.carry_out(action)
    assert [call for call in scene.calls if not call.startswith("get")] == ["fence"]


@pytest.mark.parametrize("status", [400, 403, 422])
@pytest.mark.parametrize("action", [KNOWN, ENSURE])
async def test_a_refusal_becomes_a_fact_in_the_api_servers_words(status: int, action: Apply | EnsureAdminKey) -> None:
    scene = Scene(answer=_error(status, "spec.x is wrong"))
    await scene.carry_out(action)
    assert scene.facts.refusals == {action.desired.id: "spec.x is wrong"}
    assert scene.kept == []


@pytest.mark.parametrize("action", [NEW, ENSURE])
async def test_a_success_clears_what_was_noted_about_this_child_alone(action: Apply | EnsureAdminKey) -> None:
    scene = Scene()
    other = ChildId(kind=ChildKind.CONFIG_MAP, name="other")
    scene.facts.refusals = {action.desired.id: "no", other: "no"}
    scene.facts.strangers = {action.desired.id: None, other: None}
    await scene.carry_out(action)
    assert (scene.facts.refusals, scene.facts.strangers) == ({other: "no"}, {other: None})


@pytest.mark.parametrize("fault", [_error(409), _error(429), _error(500), ApiUnavailableError("gone")])
@pytest.mark.parametrize("action", [KNOWN, NEW])
async def test_what_may_pass_is_raised_and_noted_nowhere(fault: Exception, action: Apply) -> None:
    scene = Scene(answer=fault)
    with pytest.raises(type(fault)):
        await scene.carry_out(action)
    assert (scene.facts.refusals, scene.facts.strangers) == ({}, {})


@pytest.mark.parametrize("status", [403, 500])
async def test_a_child_that_could_not_be_looked_up_is_not_written(status: int) -> None:
    scene = Scene(met=_error(status))
    with pytest.raises(ApiError):
        await scene.carry_out(NEW)
    assert scene.calls == ["get Service"]


async def test_the_admin_key_is_created_with_the_derived_value() -> None:
    scene = Scene()
    await scene.carry_out(ENSURE)
    (body,) = scene.bodies
    value = base64.b64decode(body["data"]["admin-key"]).decode()
    assert value == names.admin_key(KEY, UID)
    assert body["immutable"] is True
    assert "data" not in SECRET.body, "no plan ever holds a key"


@pytest.mark.parametrize("answer", [None, _error(409)], ids=["created", "there already"])
async def test_the_admin_key_is_known_to_be_there(answer: Exception | None) -> None:
    scene = Scene(answer=answer)
    await scene.carry_out(ENSURE)
    assert scene.facts.secret_known


async def test_an_admin_key_that_could_not_be_written_is_not_known() -> None:
    scene = Scene(answer=_error(500))
    with pytest.raises(ApiError):
        await scene.carry_out(ENSURE)
    assert not scene.facts.secret_known


@pytest.mark.parametrize("answer", [None, _error(404), _error(409)], ids=["deleted", "gone", "changed since"])
async def test_a_delete_that_finds_nothing_to_delete_is_fine(answer: Exception | None) -> None:
    scene = Scene(answer=answer)
    await scene.carry_out(DELETE)
    assert scene.calls == ["fence", "delete Service"]


@pytest.mark.parametrize("status", [403, 500])
async def test_a_delete_that_is_refused_is_raised(status: int) -> None:
    with pytest.raises(ApiError):
        await Scene(answer=_error(status)).carry_out(DELETE)


MARK = MarkForRemoval(pod="sentiment-w1-0", uid="pod-uid")
FORGET = DeleteEndpoints(service="sentiment")


async def test_a_pod_that_was_drained_is_marked_and_nothing_else_of_it_is_touched() -> None:
    scene = Scene()
    await scene.carry_out(MARK)
    assert scene.calls == ["fence", "apply Pod"]
    annotations = {"controller.kubernetes.io/pod-deletion-cost": "-1000"}
    assert scene.managers == [names.FIELD_MANAGER]
    metadata = {"name": "sentiment-w1-0", "namespace": "default", "uid": "pod-uid", "annotations": annotations}
    assert scene.bodies == [{"apiVersion": "v1", "kind": "Pod", "metadata": metadata}]


async def test_a_kubelet_is_told_of_a_change_and_the_mark_stays() -> None:
    scene = Scene()
    await scene.carry_out(ShowChange(pod="sentiment-w1-0", uid="pod-uid", change="w2"))
    assert scene.calls == ["fence", "apply Pod"]
    metadata = {"name": "sentiment-w1-0", "namespace": "default", "uid": "pod-uid"}
    assert scene.bodies[0]["metadata"] == metadata | {"annotations": {"conch.dev/change": "w2"}}
    assert scene.managers == ["conch-operator-change"], "an apply takes back what its manager does not name again"


@pytest.mark.parametrize("status", [404, 409])
async def test_a_pod_that_is_gone_needs_no_mark(status: int) -> None:
    await Scene(answer=_error(status)).carry_out(MARK)


async def test_a_mark_that_is_refused_is_an_error_so_that_no_other_pod_goes_in_its_place() -> None:
    with pytest.raises(ApiError):
        await Scene(answer=_error(403)).carry_out(MARK)


async def test_endpoints_are_deleted_as_they_were_seen() -> None:
    scene = Scene(met={"uid": "u", "resourceVersion": "7"})
    await scene.carry_out(FORGET)
    assert scene.calls == ["get Endpoints", "fence", "delete Endpoints"]


async def test_endpoints_that_are_gone_are_no_error() -> None:
    scene = Scene()
    await scene.carry_out(FORGET)
    assert scene.calls == ["get Endpoints"]


async def test_a_window_is_opened_in_memory_and_nothing_is_written() -> None:
    scene = Scene()
    scene.fenced = True
    assert scene.samples.read(UID, (), ()) is None
    await scene.carry_out(OpenWindow(name="w2/Shifting/0"))
    window = scene.samples.read(UID, (), ())
    assert window is not None
    assert (window.name, dict(window.samples), scene.calls) == ("w2/Shifting/0", {}, [])
