"""The local cluster's pure and small parts, without a cluster."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.cluster import binaries, cache, images, processes
from tests.cluster.constants import NODES, RUN
from tests.cluster.errors import ClusterError
from tests.cluster.processes import Processes
from tests.cluster.progress import duration


def test_durations_are_for_people() -> None:
    assert [duration(7.4), duration(187)] == ["7 s", "3 min 07 s"]


def test_a_digest_tells_texts_apart_that_join_to_the_same() -> None:
    assert cache.digest("ab", "c") != cache.digest("a", "bc")


def test_an_image_depends_on_what_its_dockerfile_copies_and_on_nothing_else(tmp_path: Path) -> None:
    recipe = "FROM x\nCOPY --chown=1:1 a.txt \\\n  folder /opt/\nCOPY --from=build /x /y\n"
    (tmp_path / "folder" / "__pycache__").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "folder/c.txt", "folder/__pycache__/c.pyc"):
        (tmp_path / name).write_text("1")

    def key() -> str:
        return cache.digest(*images._content(tmp_path, images._sources(recipe)))

    first = key()
    (tmp_path / "b.txt").write_text("2")
    (tmp_path / "folder" / "__pycache__" / "c.pyc").write_text("2")
    assert key() == first
    (tmp_path / "folder" / "c.txt").write_text("2")
    assert key() != first


def test_a_daemon_is_ended_and_forgotten(tmp_path: Path) -> None:
    daemons = Processes(records=tmp_path / "records", logs=tmp_path / "logs")
    record = daemons.start("sleeper", [sys.executable, "-c", "import time; time.sleep(600)"])
    assert record.alive
    assert daemons.get("sleeper") == record
    daemons.stop("sleeper")
    assert not record.alive
    assert daemons.all() == []


def test_a_process_that_took_a_dead_ones_pid_is_not_ours() -> None:
    started = processes.start_time(os.getpid())
    assert started is not None
    mine = processes.Record(name="x", pid=os.getpid(), started=started, boot=processes.boot_id(), argv=("x",))
    other = processes.Record(name="x", pid=os.getpid(), started=started - 1, boot=processes.boot_id(), argv=("x",))
    assert mine.alive
    assert not other.alive


def test_an_unknown_program_is_named() -> None:
    with pytest.raises(ClusterError, match="no program nonsense"):
        binaries.ensure("nonsense")


def test_no_socket_path_is_too_long_for_the_kernel() -> None:
    for node in NODES:
        assert len(str(RUN / node.name / "containerd.sock.ttrpc")) < 108


def test_node_address_ranges_are_disjoint() -> None:
    assert len({node.pod_range[0].rpartition(".")[0] for node in NODES}) == len(NODES)
    assert len({node.address for node in NODES}) == len(NODES)
