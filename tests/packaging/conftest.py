"""What the tests with torch share. Without torch there is nothing to collect here."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

if importlib.util.find_spec("torch") is None:
    collect_ignore_glob = ["*"]

HERE = Path(__file__).parent
Write = Callable[..., str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder are marked `torch`."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.torch)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a user's Python file into the folder that the test now runs in, and gives its name."""
    monkeypatch.chdir(tmp_path)

    def written(source: str, name: str = "model.py") -> str:
        Path(name).write_text(dedent(source).lstrip())
        return name

    return written
