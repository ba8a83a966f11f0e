"""Options and fixtures of the whole test tree."""

from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import settings

from tests.support.reruns import pytest_runtest_setup as pytest_runtest_setup
from tests.support.reruns import pytest_timeout_set_timer as pytest_timeout_set_timer

# No test depends on how fast this machine is.
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")


class Golden(Protocol):
    """Compares text with a committed file."""

    def __call__(self, path: Path, text: str) -> None: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden` writes the golden files instead of comparing with them."""
    parser.addoption("--update-golden", action="store_true", help="write golden files instead of comparing")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compare with a golden file, or write it when asked to."""

    def compare(path: Path, text: str) -> None:
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"{path} is missing; run pytest --update-golden and read what it wrote"
        assert text == path.read_text(), f"{path.name} differs; if that is meant: pytest --update-golden"

    return compare
