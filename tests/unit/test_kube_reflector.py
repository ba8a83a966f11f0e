"""The reflector: what it keeps is what the cluster holds, through relists, lost watches and garbage."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from itertools import pairwise
from typing import Any, cast

import pytest

from conch.kube import resources
from conch.kube.client import KubeClient
from conch.kube.errors import ApiError, ApiUnavailableError
from conch.kube.reflector import ObjectKey, Reflector
from tests.support.virtual_time import run_virtually, virtual_now

EXPIRED = ApiError(410, "Expired", "too old", what="watch")
FORBIDDEN = ApiError(403, "Forbidden", "no", what="list")


def _live(name: str, version: int, value: str = "") -> dict[str, Any]:
    return {"metadata": {"namespace": "ns", "name": name, "resourceVersion": str(version)}, "value": value}


def _list(version: int, *items: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"resourceVersion": str(version)}, "items": list(items)}


class Script:
    """A client whose answers are given: lists one after the other, watches as lists of events ended by a fault."""

    def __init__(self, lists: list[Any], watches: list[list[Any]]) -> None:
        self._lists = lists
        self._watches = watches
        self.calls: list[tuple[str, float]] = []
        self.finished = asyncio.Event()

    async def pages(self, resource: Any, *, label_selector: str = "") -> AsyncIterator[Any]:
        assert (resource, label_selector) == (resources.CONFIG_MAPS, "a=b")
        self.calls.append(("list", virtual_now()))
        answer = self._lists.pop(0)
        for page in answer if isinstance(answer, list) else [answer]:
            if isinstance(page, Exception):
                raise page
            yield page

    async def watch(
        self, resource: Any, *, resource_version: str, label_selector: str = ""
    ) -> AsyncIterator[tuple[str, Any]]:
        assert (resource, label_selector) == (resources.CONFIG_MAPS, "a=b")
        self.calls.append((f"watch {resource_version}", virtual_now()))
        if not self._watches:
            self.finished.set()
            await asyncio.Event().wait()
        for event in self._watches.pop(0):
            if isinstance(event, Exception):
                raise event
            if callable(event):
                event()
            else:
                yield event


Change = tuple[str, str | None, str | None]


def _project(live: Mapping[str, Any]) -> str:
    return str(live["value"])


def _reflect(
    lists: list[Any], watches: list[list[Any]] | None = None, puts: Mapping[int, dict[str, Any]] | None = None
) -> tuple[dict[str, str], list[Change], list[tuple[str, float]]]:
    """What is kept, told and asked when the script has been played; `puts` happen before a watch of that number."""
    changes: list[Change] = []

    def on_change(key: ObjectKey, before: str | None, after: str | None) -> None:
        assert key[0] == "ns"
        changes.append((key[1], before, after))

    async def main() -> tuple[dict[str, str], list[Change], list[tuple[str, float]]]:
        script = Script(lists, watches or [])
        reflector = Reflector(
            cast(KubeClient, script),
            resources.CONFIG_MAPS,
            project=_project,
            on_change=on_change,
            label_selector="a=b",
        )
        for number, live in (puts or {}).items():
            (watches or [])[number].insert(0, lambda live=live: reflector.put(live))
        run = asyncio.ensure_future(reflector.run())
        await asyncio.wait({run, asyncio.ensure_future(script.finished.wait())}, return_when=asyncio.FIRST_COMPLETED)
        assert not run.done(), run
        assert reflector.synced.is_set()
        run.cancel()
        met = {name for name, _, _ in changes}
        kept = {name: value for name in met if (value := reflector.get(("ns", name))) is not None}
        return kept, changes, script.calls

    return run_virtually(main)


def test_a_list_is_kept_and_told() -> None:
    kept, changes, _ = _reflect([_list(5, _live("a", 1, "x"), _live("b", 2, "y"))])
    assert kept == {"a": "x", "b": "y"}
    assert changes == [("a", None, "x"), ("b", None, "y")]


def test_all_pages_of_a_list_are_kept_and_what_is_on_none_vanishes() -> None:
    pages = [_list(20, _live("a", 1, "x")), _list(20, _live("b", 2, "y"))]
    kept, _, _ = _reflect([_list(5, _live("ghost", 1), _live("b", 2, "y")), pages], [[EXPIRED]])
    assert kept == {"a": "x", "b": "y"}


def test_a_list_that_breaks_off_between_two_pages_removes_nothing_and_is_read_anew() -> None:
    first = _list(5, _live("a", 1, "x"), _live("b", 2, "y"))
    broken = [_list(20, _live("a", 1, "x")), EXPIRED]
    _, changes, _ = _reflect([first, broken, first], [[EXPIRED]])
    assert changes == [("a", None, "x"), ("b", None, "y")]


def test_the_watch_begins_where_the_list_ended() -> None:
    _, _, calls = _reflect([_list(5)])
    assert [what for what, _ in calls] == ["list", "watch 5"]


def test_events_are_followed() -> None:
    events = [("ADDED", _live("a", 6, "x")), ("MODIFIED", _live("a", 7, "y")), ("DELETED", _live("a", 8, "y"))]
    kept, changes, _ = _reflect([_list(5)], [events])
    assert kept == {}
    assert changes == [("a", None, "x"), ("a", "x", "y"), ("a", "y", None)]


def test_an_event_that_changes_nothing_that_is_kept_is_not_told() -> None:
    _, changes, _ = _reflect([_list(5, _live("a", 1, "x"))], [[("MODIFIED", _live("a", 6, "x"))]])
    assert changes == [("a", None, "x")]


def test_a_watch_that_ended_goes_on_behind_the_last_event_or_bookmark() -> None:
    bookmark = ("BOOKMARK", {"metadata": {"resourceVersion": "9"}})
    _, changes, calls = _reflect([_list(5)], [[("ADDED", _live("a", 6))], [bookmark], []])
    assert [what for what, _ in calls] == ["list", "watch 5", "watch 6", "watch 9", "watch 9"]
    assert len(changes) == 1


def test_a_connection_that_broke_costs_no_relist() -> None:
    _, _, calls = _reflect([_list(5)], [[("ADDED", _live("a", 6)), ApiUnavailableError("reset")]])
    assert [what for what, _ in calls] == ["list", "watch 5", "watch 6"]


def test_an_expired_version_is_listed_anew_at_once() -> None:
    _, _, calls = _reflect([_list(5), _list(20)], [[EXPIRED]])
    assert [what for what, _ in calls] == ["list", "watch 5", "list", "watch 20"]
    assert calls[2][1] == calls[1][1]


def test_a_relist_removes_and_tells_what_vanished_meanwhile() -> None:
    kept, changes, _ = _reflect(
        [_list(5, _live("ghost", 1, "x"), _live("b", 2, "y")), _list(20, _live("b", 2, "y"))], [[EXPIRED]]
    )
    assert kept == {"b": "y"}
    assert changes == [("ghost", None, "x"), ("b", None, "y"), ("ghost", "x", None)]


def test_a_relist_takes_what_changed_meanwhile() -> None:
    kept, _, _ = _reflect([_list(5, _live("a", 1, "x")), _list(20, _live("a", 15, "z"))], [[EXPIRED]])
    assert kept == {"a": "z"}


def test_an_event_that_is_older_than_the_answer_to_a_write_does_not_overwrite_it() -> None:
    kept, _, _ = _reflect([_list(5)], [[("ADDED", _live("a", 6, "before"))]], puts={0: _live("a", 7, "written")})
    assert kept == {"a": "written"}


def test_an_event_that_is_newer_than_the_answer_to_a_write_counts() -> None:
    kept, _, _ = _reflect([_list(5)], [[("MODIFIED", _live("a", 8, "edited"))]], puts={0: _live("a", 7, "written")})
    assert kept == {"a": "edited"}


@pytest.mark.parametrize(
    "garbage",
    [("ADDED", None), ("ADDED", []), ("ADDED", {}), ("MODIFIED", {"metadata": {}}), ("ADDED", {"metadata": "x"})],
)
def test_garbage_in_a_watch_is_survived_and_followed_by_a_relist(garbage: Any) -> None:
    kept, _, calls = _reflect([_list(5), _list(20, _live("a", 19, "x"))], [[garbage]])
    assert kept == {"a": "x"}
    assert [what for what, _ in calls] == ["list", "watch 5", "list", "watch 20"]


@pytest.mark.parametrize("garbage", [{}, {"metadata": {}}, {"metadata": {"resourceVersion": "1"}, "items": [3]}])
def test_garbage_in_a_list_is_survived(garbage: Any) -> None:
    assert _reflect([garbage, _list(5, _live("a", 1, "x"))])[0] == {"a": "x"}


@pytest.mark.parametrize("fault", [FORBIDDEN, ApiUnavailableError("no route")])
def test_a_list_that_is_refused_is_tried_again_ever_more_rarely(fault: Exception) -> None:
    _, _, calls = _reflect([*[fault] * 9, _list(5)])
    times = [at for what, at in calls if what == "list"]
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert all(min(20, 0.5 * 2**n) / 2 - 0.01 <= wait <= min(20, 0.5 * 2**n) + 0.01 for n, wait in enumerate(waits))


def test_a_watch_that_the_server_ends_at_once_again_and_again_is_not_a_busy_loop() -> None:
    _, _, calls = _reflect([_list(5)], [[] for _ in range(40)])
    assert calls[-1][1] - calls[0][1] > 2


def test_an_answer_that_comes_after_a_newer_event_does_not_overwrite_it() -> None:
    watches = [[("ADDED", _live("a", 6, "old")), ("MODIFIED", _live("a", 9, "newest"))], [("BOOKMARK", _live("", 9))]]
    kept, _, _ = _reflect([_list(5)], watches, puts={1: _live("a", 7, "late")})
    assert kept == {"a": "newest"}


def test_an_answer_that_comes_after_the_object_went_does_not_raise_the_dead() -> None:
    watches = [[("ADDED", _live("a", 6, "x")), ("DELETED", _live("a", 9, "x"))], [("BOOKMARK", _live("", 9))]]
    kept, _, _ = _reflect([_list(5)], watches, puts={1: _live("a", 7, "late")})
    assert kept == {}


def test_an_object_that_cannot_be_read_hides_no_other() -> None:
    unreadable = {"metadata": _live("bad", 1)["metadata"]}
    kept, _, calls = _reflect([_list(5, unreadable, _live("a", 1, "x"))], [[("ADDED", {**unreadable})]])
    assert kept == {"a": "x"}
    assert [what for what, _ in calls].count("list") == 1


@pytest.mark.parametrize("fault", [EXPIRED, FORBIDDEN], ids=["expired", "forbidden"])
def test_a_watch_that_is_refused_again_and_again_costs_ever_fewer_lists(fault: Exception) -> None:
    """A list that works says nothing of the watch; it is the dearest of all calls."""
    rounds = 8
    _, _, calls = _reflect([_list(number) for number in range(1, rounds + 2)], [[fault]] * rounds)
    lists = [at for call, at in calls if call == "list"]
    waits = [after - before for before, after in pairwise(lists)][1:]
    assert all(wait > 0.4 for wait in waits)
    assert waits[-1] > 5 > waits[0]


def test_a_list_that_works_at_last_ends_the_wait_that_its_faults_made() -> None:
    """Otherwise the first fault of the watch blinds a new operator for another 20 s."""
    fault = ApiUnavailableError("no route")
    _, _, calls = _reflect([*[fault] * 9, _list(5)], [[fault]])
    assert [what for what, _ in calls[9:]] == ["list", "watch 5", "watch 5"]
    assert calls[-1][1] - calls[-2][1] <= 0.5


def test_a_watch_that_the_server_ended_ends_the_wait_too() -> None:
    fault = ApiUnavailableError("reset")
    _, _, calls = _reflect([_list(5)], [*[[fault]] * 9, [], [fault]])
    assert calls[-2][1] - calls[-3][1] <= 0.5, "the watch that ended, and the next"
    assert calls[-1][1] - calls[-2][1] <= 0.5


def test_a_deletion_that_is_older_than_the_answer_to_a_write_does_not_remove_what_it_made() -> None:
    """The watch tells of the old object's end after a new one of its name was written."""
    kept, _, _ = _reflect([_list(1, _live("a", 1))], [[("DELETED", _live("a", 8))]], {0: _live("a", 9, "new")})
    assert kept == {"a": "new"}


def test_what_is_remembered_of_the_gone_is_bounded() -> None:
    async def main() -> int:
        gone = [("DELETED", _live(f"a{number}", 6 + number)) for number in range(3000)]
        script = Script([_list(5)], [gone])
        reflector = Reflector(
            cast(KubeClient, script),
            resources.CONFIG_MAPS,
            project=_project,
            on_change=lambda *_: None,
            label_selector="a=b",
        )
        run = asyncio.ensure_future(reflector.run())
        await script.finished.wait()
        run.cancel()
        return len(reflector._removed)

    assert 0 < run_virtually(main) <= 1024


def test_the_watchs_repetition_of_a_write_is_not_even_read() -> None:
    events = [("ADDED", _live("a", 7, "the same version is the same object"))]
    kept, changes, _ = _reflect([_list(5)], [events], puts={0: _live("a", 7, "written")})
    assert kept == {"a": "written"}
    assert changes == [("a", None, "written")]
