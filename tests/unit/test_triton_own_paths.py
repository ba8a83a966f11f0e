"""Paths within a model's folder: made absolute, and never leading out of it."""

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.triton.own_paths import MODEL_DIRECTORY, Place

FILES = frozenset({"1/model.json", "1/weights/a", "shared/b"})
PLACE = Place(folder="/repository/m", version=1, files=FILES)
PARTS = st.sampled_from(
    ["..", ".", "", "1", "weights", "a", "shared", "m", "repository", "etc", "passwd", "~", "\0", "m2"]
)


@pytest.mark.parametrize(
    ("path", "whole"),
    [
        ("weights", "/repository/m/1/weights"),
        ("weights/a", "/repository/m/1/weights/a"),
        ("../shared", "/repository/m/shared"),
        (MODEL_DIRECTORY, "/repository/m"),
        (f"{MODEL_DIRECTORY}/shared", "/repository/m/shared"),
        ("/repository/m/shared/", "/repository/m/shared"),
        ("weight", None),
        ("2", None),
        ("../../other", None),
        ("../..", None),
        (f"{MODEL_DIRECTORY}x/shared", None),
        ("/repository/m2", None),
        ("/etc/passwd", None),
        ("org/name", None),
    ],
)
def test_where_a_path_leads(path: str, whole: str | None) -> None:
    assert PLACE.own(path) == whole


def test_what_is_below_a_folder() -> None:
    assert PLACE.below("/repository/m/1") == {"model.json", "weights/a"}
    assert PLACE.below("/repository/m") == FILES


@given(st.lists(PARTS, max_size=8).map("/".join), st.sampled_from(["", "/", MODEL_DIRECTORY, "/repository/m"]))
def test_no_path_leads_out(path: str, start: str) -> None:
    own = PLACE.own(start + path)
    if own is not None:
        assert own == posixpath.normpath(own)
        inner = posixpath.relpath(own, "/repository/m")
        assert inner == "." or any(f"{file}/".startswith(f"{inner}/") for file in FILES)
