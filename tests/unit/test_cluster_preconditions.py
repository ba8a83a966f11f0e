"""What the local cluster needs and no command of ours can repair is named in one clear error, with what to do."""

import os
import platform
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from tests.cluster import network, preconditions
from tests.cluster.errors import ClusterError

GB = 1_000_000_000

_Usage = namedtuple("_Usage", "total used free")


@pytest.fixture(autouse=True)
def _fitting_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(100 * GB, 0, 100 * GB))
    monkeypatch.setenv("CONCH_CACHE", str(tmp_path))


def test_a_fitting_machine_passes() -> None:
    preconditions.check()


def test_another_system_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    with pytest.raises(ClusterError, match=r"needs Linux on x86_64; this is Darwin(.|\n)*CLUSTER=existing"):
        preconditions.check()


def test_not_root_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ClusterError, match=r"you are not root(.|\n)*Run it as root"):
        preconditions.check()
    with pytest.raises(ClusterError, match="you are not root"):
        preconditions.check_can_change()


def test_a_full_disk_is_named_with_what_is_free_and_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(100 * GB, 98 * GB, 2 * GB))
    with pytest.raises(ClusterError, match=r"has 2 GB free; the local cluster needs \d+ GB(.|\n)*CONCH_CACHE"):
        preconditions.check()


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ClusterError, match=r"'go' is missing(.|\n)*PATH"):
        preconditions.check()


def test_without_apt_the_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preconditions, "DEBIAN_PACKAGES", {"no-such-program": "its-package"})
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ClusterError, match=r"no Debian where they can be installed: its-package"):
        preconditions.install_packages()


def test_another_network_in_the_way_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "overlapping_routes", lambda: ["10.9.0.0/16 dev vpn0"])
    with pytest.raises(ClusterError, match=r"10\.9\.0\.0/16 dev vpn0(.|\n)*constants\.py"):
        preconditions.check_network()


def test_another_kubernetes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "overlapping_routes", list)
    monkeypatch.setattr(network, "nft_tables", lambda: [("ip", "kube-proxy")])
    with pytest.raises(ClusterError, match=r"Another Kubernetes runs on this machine(.|\n)*CLUSTER=existing"):
        preconditions.check_network()
