"""The environment with torch: Conch in it is this checkout's."""

import importlib.metadata
import re
import sys
from pathlib import Path

import pytest

import conch.packaging
from tests.cluster import cache
from tests.cluster.constants import REPOSITORY
from tests.cluster.errors import ClusterError
from tests.packaging import environment


def test_conch_is_not_installed_but_the_checkouts_own() -> None:
    assert Path(conch.packaging.__file__).is_relative_to(REPOSITORY / "operator")
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("conch")


def test_it_lies_in_the_cache_under_the_hash_of_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_install", lambda folder: pytest.fail(f"would install {folder}"))
    assert environment.ensure() == Path(sys.prefix) / "bin" / "python"


def test_the_lock_has_the_versions_of_the_other_tests() -> None:
    def pinned(name: str) -> set[str]:
        return set(re.findall(r"^[\w.-]+==[^ ]+", (REPOSITORY / "requirements" / name).read_text(), re.MULTILINE))

    assert pinned("dev.txt") <= pinned("torch.txt")


def test_a_failed_installation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCH_CACHE", str(tmp_path))

    def fails(*arguments: str) -> None:
        if arguments[0] == "venv":
            (Path(arguments[-1]) / "bin").mkdir(parents=True)
            (Path(arguments[-1]) / "bin" / "python").touch()
        else:
            raise ClusterError("the index is away", todo="wait")

    monkeypatch.setattr(environment, "_uv", fails)
    with pytest.raises(ClusterError, match="the index is away"):
        environment.ensure()
    assert [path.name for path in (cache.root() / "torch").iterdir()] == [".lock"]


def test_a_full_disk_is_told_before_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCH_CACHE", str(tmp_path))
    monkeypatch.setattr(environment, "_NEEDED_BYTES", 10**18)
    monkeypatch.setattr(environment, "_uv", lambda *arguments: pytest.fail(f"would run uv {arguments}"))
    with pytest.raises(ClusterError, match="CONCH_CACHE"):
        environment.ensure()
