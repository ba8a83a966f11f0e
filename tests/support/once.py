"""What all the processes of one test run need: made by the first of them that asks."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster import cache


def folder_of_run(folders: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this test run have, and no other run."""
    own = folders.getbasetemp()
    # pytest-xdist gives each of its workers a folder below the run's.
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def once(folder: Path, what: str, make: Callable[[], object]) -> None:
    """Make it, unless another process with this folder has; returns when it is there."""
    made = folder / f"{what}.made"
    with cache.locked(folder / f"{what}.lock", what=f"makes {what} for the tests"):
        if not made.exists():
            make()
            made.touch()
