"""What is told when a test on the cluster fails: enough to see why, never too much, and never a failure of its own."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

from tests.cluster.client import Cluster
from tests.e2e.failure_report import LINES, describe

ROOT = Path(__file__).parents[2]
STATUS = {
    "observedGeneration": 3,
    "rollout": {"id": "w2", "phase": "Halted", "cause": "CandidateFailed"},
    "rejected": [{"revision": "r2", "cause": "CandidateFailed"}],
    "traffic": [{"workload": "w1", "weight": 100}],
    "conditions": [{"type": "Ready", "status": "False", "reason": "CandidateFailed", "message": "no such backend"}],
}
EVENTS = [
    {
        "metadata": {},
        "eventTime": f"2026-01-01T00:00:{second:02}Z",
        "reason": f"Happened{second}",
        "regarding": {"kind": "Pod", "name": "p"},
        "note": "so",
    }
    for second in range(40)
]
POD = {
    "metadata": {"name": "digits-w2-a"},
    "status": {
        "phase": "Running",
        "containerStatuses": [{"name": "triton", "state": {"waiting": {"reason": "RunContainerError"}}}],
    },
}


class FakeCluster:
    """Answers as kubectl does, or as `fault` says."""

    def __init__(self, *, objects: int = 1, fault: str = "") -> None:
        self.objects, self.fault, self.asked = objects, fault, 0

    def kubectl(self, *words: str, timeout: float) -> subprocess.CompletedProcess[str]:
        self.asked += 1
        if self.fault == "slow":
            time.sleep(timeout)
            raise subprocess.TimeoutExpired(words, timeout)
        if self.fault:
            raise RuntimeError(self.fault)
        return subprocess.CompletedProcess(words, 0, stdout=self._answer(words))

    def _answer(self, words: tuple[str, ...]) -> str:
        if words[0] == "logs":
            return "".join(f"a line of {words[1]} that is long {'x' * 900} {number}\n" for number in range(15))
        items: dict[str, list[Any]] = {
            "mdep": [{"metadata": {"name": "digits", "generation": 4}, "status": STATUS}] * self.objects,
            "pods": [POD],
            "events.v1.events.k8s.io": EVENTS,
        }
        if words[1] == "lease":
            return json.dumps({"spec": {"holderIdentity": "conch-operator-b"}})
        operators = [{"metadata": {"name": f"conch-operator-{each}"}, "status": {}} for each in "ab"]
        return json.dumps({"items": operators if "conch-system" in words else items[words[1]]})


def _described(cluster: FakeCluster, **limits: float) -> str:
    return describe(cast(Cluster, cluster), "e2e-1", **limits)


def test_all_that_tells_why_is_told() -> None:
    told = _described(FakeCluster())
    for part in (
        "digits (generation 4, observed 3)",
        '"phase": "Halted", "cause": "CandidateFailed"',
        'rejected: [{"revision": "r2"',
        'traffic: [{"workload": "w1", "weight": 100}]',
        "Ready=False CandidateFailed: no such backend",
        'digits-w2-a Running: triton not ready x0 {"waiting": {"reason": "RunContainerError"}}',
        '"holderIdentity": "conch-operator-b"',
        "Pod/p Happened39: so",
        "Pod/p Happened25: so",
        "a line of conch-operator-a",
        "a line of conch-operator-b",
    ):
        assert part in told
    assert "Happened24" not in told
    assert len(told.splitlines()) <= 65
    assert max(map(len, told.splitlines())) <= 302


def test_what_is_too_much_is_left_out_and_that_is_told() -> None:
    lines = _described(FakeCluster(objects=50)).splitlines()
    assert len(lines) <= LINES + 1
    assert any("lines left out" in line for line in lines)
    assert lines[-1].startswith("    a line of conch-operator-b") or lines[-1].startswith(
        "  a line of conch-operator-b"
    )


def test_a_cluster_that_does_not_answer_makes_no_other_failure() -> None:
    told = _described(FakeCluster(fault="connection refused"))
    assert told.count("connection refused") == 5


def test_a_cluster_that_hangs_holds_nothing_up() -> None:
    began, cluster = time.monotonic(), FakeCluster(fault="slow")
    assert "no time is left" in _described(cluster, seconds=0.2)
    assert time.monotonic() - began < 60
    assert cluster.asked == 1


def test_it_is_shown_with_the_failure_also_of_a_test_that_passes_when_it_is_run_once_more(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    (tmp_path / "conftest.py").write_text(
        "import pytest\n"
        "from tests.e2e.conftest import Namespace, pytest_runtest_makereport\n"
        "from tests.unit.test_failure_report import FakeCluster\n"
        "@pytest.fixture\n"
        "def namespace(): return Namespace(FakeCluster(), 'e2e-1')\n"
    )
    (tmp_path / "test_it.py").write_text(
        "attempts = []\n"
        "def test_once(namespace): attempts.append(1); assert len(attempts) > 1\n"
        "def test_always(namespace): print('said'); assert 0\n"
        "def test_elsewhere(): assert 0\n"
    )
    words = ["-p", "no:cacheprovider", "--reruns", "1", "--rerun-show-tracebacks", "-n", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, "--rootdir", tmp_path, "-c", tmp_path / "pytest.ini", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "2 failed, 1 passed, 3 rerun" in done.stdout, done.stdout + done.stderr
    # Of `test_always` with the failure and the attempt before it, of `test_once` with its first attempt.
    assert done.stdout.count("Happened39") == 3
