"""A listing from a stranger's store becomes plain files below one folder, or nothing."""

import time

import pytest

from conch.api.reasons import Reason
from conch.store.errors import StoreError
from conch.store.listing_checks import FILES_MOST, PATH_MAX_DEPTH, check_listing
from conch.store.remote import Listing, RemoteFile


def listing(*paths: str, size: int | None = 1) -> Listing:
    files = tuple(RemoteFile(path=path, key=path, size=size) for path in paths)
    return Listing(files=files, resolved="", folder=True)


def refusal(listed: Listing, limit_bytes: int = 1 << 20) -> tuple[Reason, str]:
    with pytest.raises(StoreError) as caught:
        check_listing(listed, shown="s3://bucket/m", limit_bytes=limit_bytes)
    assert caught.value.message.startswith("s3://bucket/m")
    return caught.value.reason, caught.value.message


@pytest.mark.parametrize("paths", [("a",), ("a", "b/a", "b/c"), ("...", "a..b/.c"), ("a b", "ü/%2e%2e"), ("C:x",)])
def test_plain_relative_names(paths: tuple[str, ...]) -> None:
    check_listing(listing(*paths), shown="s", limit_bytes=1 << 20)


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "/", "/etc/passwd", "../a", "a/../b", "a/..", "./a", "a/./b", "a//b", "a/", "//a", "a\0b", "a\nb",
     "a\rb", "a\\b", "..\\a", "a\udc80", "x" * 1025, "é" * 513, "/".join("a" * (PATH_MAX_DEPTH + 1))],
)  # fmt: skip
@pytest.mark.parametrize("more", [(), ("z",)])
def test_other_names(path: str, more: tuple[str, ...]) -> None:
    reason, message = refusal(listing(path, *more))
    assert (reason, "rename" in message) == (Reason.INVALID_MODEL, True)
    message.encode()


def test_as_deep_as_an_archive_may_be() -> None:
    check_listing(listing("/".join("a" * PATH_MAX_DEPTH)), shown="s", limit_bytes=1 << 20)


@pytest.mark.parametrize("paths", [("a", "a"), ("a", "b", "a")])
def test_each_once(paths: tuple[str, ...]) -> None:
    assert "twice" in refusal(listing(*paths))[1]


@pytest.mark.parametrize("paths", [("a", "a/b"), ("a/b/c/d", "a/b"), ("a/b", "z", "a/b/c/d/e")])
def test_both_file_and_folder(paths: tuple[str, ...]) -> None:
    assert "both as a file and as a folder" in refusal(listing(*paths))[1]


def test_nothing() -> None:
    assert refusal(listing())[0] is Reason.INVALID_MODEL


def test_too_many_files() -> None:
    names = [str(number) for number in range(FILES_MOST + 1)]
    assert refusal(listing(*names))[0] is Reason.SOURCE_TOO_LARGE
    check_listing(listing(*names[1:]), shown="s", limit_bytes=1 << 20)


def test_too_many_bytes() -> None:
    assert refusal(listing("a", "b", size=5), 9)[0] is Reason.SOURCE_TOO_LARGE
    check_listing(listing("a", "b", size=5), shown="s", limit_bytes=10)
    check_listing(listing("a", "b", size=None), shown="s", limit_bytes=1)


def test_deep_names_of_a_hostile_store_cost_no_time() -> None:
    """It runs in the event loop, which answers probes."""
    names = [f"{number}/" + "a/" * 500 + "a" for number in range(FILES_MOST)]
    began = time.process_time()
    refusal(listing(*names))
    assert time.process_time() - began < 5
