"""The edge: whatever ends kopf, the supervisor hears of it."""

import asyncio

import kopf
import pytest

from conch.app.edge import Edge, _settings


@pytest.mark.parametrize("end", [RuntimeError("410"), SystemExit(1), asyncio.CancelledError()])
async def test_the_end_of_kopf_is_raised(end: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    async def operator(**_: object) -> None:
        raise end

    monkeypatch.setattr(kopf, "operator", operator)
    with pytest.raises(RuntimeError, match="kopf ended"):
        await asyncio.wait_for(Edge(on_event=lambda *_: None).run(), timeout=10)


async def test_an_edge_that_ends_by_itself_ends() -> None:
    with pytest.MonkeyPatch.context() as patch:

        async def operator(**_: object) -> None:
            return

        patch.setattr(kopf, "operator", operator)
        await asyncio.wait_for(Edge(on_event=lambda *_: None).run(), timeout=10)


def test_kopf_neither_copies_nor_stores_anything_of_an_object() -> None:
    storage = _settings().persistence.diffbase_storage
    body = kopf.Body({"spec": {"a": 1}, "metadata": {"annotations": {"b": "c"}}})
    assert storage.build(body=body) == {}
    assert storage.fetch(body=body) is None
    patch = kopf.Patch()
    storage.store(body=body, patch=patch, essence=kopf.BodyEssence())
    assert not patch


def test_kopf_gives_a_dead_connection_up_within_half_a_minute_and_lets_watches_last() -> None:
    settings = _settings()
    assert settings.networking.connect_timeout
    assert settings.networking.request_timeout
    assert settings.networking.connect_timeout < settings.networking.request_timeout <= 30
    assert settings.watching.server_timeout
    assert settings.watching.client_timeout
    assert settings.networking.request_timeout < settings.watching.server_timeout < settings.watching.client_timeout
    assert settings.watching.inactivity_timeout > 60, "bookmarks come once a minute"
