"""The client against a small server on loopback: what it sends, and what it makes of answers good and bad."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client as kubernetes_client

from conch.kube import resources
from conch.kube.client import KubeClient
from conch.kube.errors import ApiError, ApiUnavailableError
from conch.kube.resources import Resource

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
OBJECT = {"metadata": {"name": "a", "namespace": "ns"}}


@asynccontextmanager
async def _connected(answer: Answer, *, token: str = "") -> AsyncIterator[KubeClient]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = kubernetes_client.Configuration()
    configuration.host = "http://{}:{}".format(*runner.addresses[0])
    if token:
        configuration.api_key = {"BearerToken": f"Bearer {token}"}
    client = KubeClient(configuration)
    try:
        yield client
    finally:
        await client.close()
        await runner.cleanup()


def _json(answer: Any, status: int = 200) -> Answer:
    async def respond(_: web.Request) -> web.StreamResponse:
        return web.json_response(answer, status=status)

    return respond


def _text(text: str | bytes, status: int = 200) -> Answer:
    async def respond(_: web.Request) -> web.StreamResponse:
        body = text.encode() if isinstance(text, str) else text
        return web.Response(body=body, status=status, content_type="text/html")

    return respond


class Recorder:
    """Answers an object and keeps what was asked."""

    def __init__(self) -> None:
        self.request: web.Request | None = None
        self.body: Any = None

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.request = request
        self.body = json.loads(await request.read() or b"null")
        return web.json_response(OBJECT)


async def _recorded(call: Callable[[KubeClient], Awaitable[Any]], *, token: str = "") -> tuple[web.Request, Any]:
    recorder = Recorder()
    async with _connected(recorder.answer, token=token) as client:
        await call(client)
    assert recorder.request is not None
    return recorder.request, recorder.body


async def _watched(answer: Answer) -> list[tuple[str, Any]]:
    async with _connected(answer) as client:
        return [event async for event in client.watch(resources.PODS, resource_version="7", label_selector="a=b")]


@pytest.mark.parametrize(
    ("resource", "arguments", "path"),
    [
        (resources.PODS, {}, "/api/v1/pods"),
        (resources.PODS, {"namespace": "ns"}, "/api/v1/namespaces/ns/pods"),
        (resources.PODS, {"namespace": "ns", "name": "a"}, "/api/v1/namespaces/ns/pods/a"),
        (resources.DEPLOYMENTS, {"namespace": "ns", "name": "a"}, "/apis/apps/v1/namespaces/ns/deployments/a"),
        (
            resources.MODEL_DEPLOYMENTS,
            {"namespace": "ns", "name": "a", "subresource": "status"},
            "/apis/conch.dev/v1alpha1/namespaces/ns/modeldeployments/a/status",
        ),
    ],
)
def test_a_resource_knows_its_path(resource: Resource, arguments: dict[str, str], path: str) -> None:
    assert resource.path(**arguments) == path


async def test_every_call_carries_the_token() -> None:
    request, _ = await _recorded(lambda client: client.get(resources.PODS, "ns", "a"), token="t0ken")
    assert request.headers["Authorization"] == "Bearer t0ken"


async def test_a_proxy_of_the_environment_never_sees_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    request, _ = await _recorded(lambda client: client.get(resources.PODS, "ns", "a"))
    assert request.path == "/api/v1/namespaces/ns/pods/a"


async def test_reading_metadata_asks_for_nothing_else() -> None:
    request, _ = await _recorded(lambda client: client.get_metadata(resources.SERVICES, "ns", "a"))
    assert "as=PartialObjectMetadata;" in request.headers["Accept"]


async def test_listing_metadata_asks_for_the_list_form() -> None:
    request, _ = await _recorded(
        lambda client: anext(client.pages(resources.PODS, label_selector="a=b", metadata_only=True))
    )
    assert "as=PartialObjectMetadataList;" in request.headers["Accept"]
    assert request.query["labelSelector"] == "a=b"


async def test_a_long_list_is_read_page_by_page() -> None:
    asked: list[str | None] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.query.get("continue"))
        assert int(request.query["limit"]) <= 500
        token = {None: "second", "second": "third"}.get(asked[-1])
        return web.json_response({"metadata": {"continue": token} if token else {}, "items": [len(asked)]})

    async with _connected(answer) as client:
        pages = [page["items"] async for page in client.pages(resources.PODS)]
    assert pages == [[1], [2], [3]]
    assert asked == [None, "second", "third"]


async def test_an_apply_is_forced_under_our_name_and_keeps_its_preconditions() -> None:
    body = {"metadata": {**OBJECT["metadata"], "uid": "u", "resourceVersion": "7"}}
    request, sent = await _recorded(
        lambda client: client.apply(resources.SERVICES, body, field_manager="m", subresource="status")
    )
    assert (request.method, request.path) == ("PATCH", "/api/v1/namespaces/ns/services/a/status")
    assert dict(request.query) == {"fieldManager": "m", "force": "true"}
    assert request.content_type == "application/apply-patch+yaml"
    assert sent == body


async def test_a_merge_patch_is_sent_as_one_under_its_field_manager() -> None:
    patch = {"metadata": {"resourceVersion": "7", "annotations": {"a": "b"}}}
    request, sent = await _recorded(
        lambda client: client.merge_patch(resources.SERVICES, "ns", "a", patch, field_manager="m")
    )
    assert (request.method, request.path) == ("PATCH", "/api/v1/namespaces/ns/services/a")
    assert dict(request.query) == {"fieldManager": "m"}
    assert request.content_type == "application/merge-patch+json"
    assert sent == patch


async def test_a_delete_names_exactly_what_was_seen() -> None:
    request, sent = await _recorded(
        lambda client: client.delete(resources.SERVICES, "ns", "a", uid="u", resource_version="7")
    )
    assert (request.method, request.path) == ("DELETE", "/api/v1/namespaces/ns/services/a")
    assert sent["preconditions"] == {"uid": "u", "resourceVersion": "7"}


async def test_a_create_goes_to_the_namespace() -> None:
    request, sent = await _recorded(lambda client: client.create(resources.SERVICES, OBJECT, field_manager="m"))
    assert (request.method, request.path, request.query["fieldManager"]) == (
        "POST",
        "/api/v1/namespaces/ns/services",
        "m",
    )
    assert sent == OBJECT


async def test_a_refusal_has_the_api_servers_words() -> None:
    status = {"kind": "Status", "reason": "Invalid", "message": "spec.x is wrong"}
    async with _connected(_json(status, 422)) as client:
        with pytest.raises(ApiError) as caught:
            await client.get(resources.PODS, "ns", "a")
    refusal = caught.value
    assert (refusal.status, refusal.reason, refusal.message) == (422, "Invalid", "spec.x is wrong")
    assert "GET /api/v1/namespaces/ns/pods/a" in str(refusal)


@pytest.mark.parametrize("text", ["<html>Bad gateway</html>", '["no", "object"]'])
async def test_an_error_page_of_something_in_between_is_a_refusal_with_its_text(text: str) -> None:
    async with _connected(_text(text, 502)) as client:
        with pytest.raises(ApiError) as caught:
            await client.get(resources.PODS, "ns", "a")
    assert (caught.value.status, caught.value.message) == (502, text)


@pytest.mark.parametrize("text", ["<html>welcome</html>", "", "[]", '"text"', "null", '{"cut": '])
async def test_an_answer_that_is_no_object_counts_as_no_answer(text: str) -> None:
    async with _connected(_text(text)) as client:
        with pytest.raises(ApiUnavailableError):
            await client.get(resources.PODS, "ns", "a")


async def test_a_server_that_is_not_there_counts_as_no_answer() -> None:
    configuration = kubernetes_client.Configuration()
    configuration.host = "http://127.0.0.1:9"
    client = KubeClient(configuration)
    with pytest.raises(ApiUnavailableError):
        await client.get(resources.PODS, "ns", "a")
    await client.close()


def _event(type_: str, **fields: Any) -> str:
    return json.dumps({"type": type_, "object": fields}) + "\n"


async def test_a_watch_gives_its_events_in_order() -> None:
    events = await _watched(_text(_event("ADDED", a=1) + _event("BOOKMARK", b=2)))
    assert events == [("ADDED", {"a": 1}), ("BOOKMARK", {"b": 2})]


async def test_a_watch_asks_for_bookmarks_from_a_version_on() -> None:
    seen: list[web.Request] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        return web.Response()

    assert await _watched(answer) == []
    query = seen[0].query
    assert (query["watch"], query["resourceVersion"], query["labelSelector"]) == ("1", "7", "a=b")
    assert query["allowWatchBookmarks"] == "true"


async def test_a_watched_object_may_be_large() -> None:
    ((_, live),) = await _watched(_text(_event("ADDED", data="x" * 1_500_000)))
    assert len(live["data"]) == 1_500_000


async def test_an_error_event_of_an_expired_version_says_so() -> None:
    with pytest.raises(ApiError) as caught:
        await _watched(_text(_event("ERROR", kind="Status", code=410, reason="Expired", message="too old")))
    assert caught.value.expired


async def test_a_refused_watch_says_so() -> None:
    with pytest.raises(ApiError) as caught:
        await _watched(_json({"reason": "Expired"}, 410))
    assert caught.value.expired


@pytest.mark.parametrize("text", ['{"type": "ADDED", "obj', "<html>\n", "[1]\n", '{"type": "ADDED"}\n', "\n"])
async def test_a_line_that_is_no_event_ends_the_watch_as_a_broken_connection(text: str) -> None:
    with pytest.raises(ApiUnavailableError, match="watch pods"):
        await _watched(_text(_event("ADDED", a=1) + text))


async def test_an_error_page_that_is_not_utf8_is_an_api_error() -> None:
    async with _connected(_text(b"caf\xe9", status=502)) as client:
        with pytest.raises(ApiError) as refused:
            await client.get(resources.SERVICES, "ns", "a")
    assert refused.value.status == 502


async def test_an_error_event_without_an_object_breaks_the_watch_and_nothing_else() -> None:
    async with _connected(_text('{"type":"ERROR","object":"gone"}\n')) as client:
        with pytest.raises(ApiUnavailableError):
            async for _ in client.watch(resources.SERVICES, resource_version="1"):
                pass
