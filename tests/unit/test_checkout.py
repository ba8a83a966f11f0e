"""Promises about the checkout itself."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCK_FILES = sorted((ROOT / "requirements").glob("*.txt"))


def test_the_operator_folder_is_no_package() -> None:
    """`operator` is a module of the standard library: an `operator/__init__.py` on the path would shadow it."""
    assert list((ROOT / "operator").glob("*.py")) == []


@pytest.mark.parametrize("path", LOCK_FILES, ids=lambda path: path.stem)
def test_a_lock_file_pins_by_hash_and_names_no_index(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    requirements = re.findall(r"^[a-z0-9].*(?:\n    .*)*", text, flags=re.MULTILINE)
    assert requirements
    assert [each for each in requirements if "==" not in each or "--hash=sha256:" not in each] == []
