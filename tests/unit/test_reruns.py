"""Tests of real processes are run once more when they fail: that is told, and their time limits hold."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = "[pytest]\nasyncio_default_fixture_loop_scope = function\n"
SCRIPT = """
import signal
import time
import pytest

attempts = []

@pytest.mark.timeout({seconds})
def test_it():
    attempts.append(1)
    {body}
"""
USED_UP = "left = signal.getitimer(signal.ITIMER_REAL)[0]; signal.setitimer(signal.ITIMER_REAL, 20)"
"""As if only 20 s of its time were left."""


def _makefile(variable: str) -> list[str]:
    lines = (ROOT / "Makefile").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"{variable} := ")).split(" := ")[1].split()


@pytest.mark.parametrize(
    ("seconds", "body", "status", "told"),
    [
        (60, "assert len(attempts) > 1, 'as busy machines do'", 0, ["1 passed, 1 rerun", "as busy machines do"]),
        (60, f"{USED_UP}; assert len(attempts) > 1 and left > 20", 0, ["1 passed, 1 rerun"]),
        (2, "assert len(attempts) > 1; time.sleep(30)", 1, ["1 failed, 1 rerun", "Timeout (>2.0s)"]),
        (2, "time.sleep(30)", 1, ["1 failed, 1 rerun", "Timeout (>2.0s)"]),
    ],
    ids=["fails once", "has the whole time again", "hangs the second time", "hangs each time"],
)
def test_a_test_that_fails_is_run_once_more_within_its_time(
    tmp_path: Path, seconds: int, body: str, status: int, told: list[str]
) -> None:
    (tmp_path / "pytest.ini").write_text(CONFIG)
    (tmp_path / "test_it.py").write_text(SCRIPT.format(seconds=seconds, body=body))
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "tests.support.reruns"]
    done = subprocess.run(
        [
            *words,
            *_makefile("ONCE_MORE"),
            "--rootdir",
            str(tmp_path),
            "-c",
            str(tmp_path / "pytest.ini"),
            str(tmp_path),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert [each for each in told if each not in done.stdout] == [], done.stdout


def test_only_tests_of_real_processes_are_run_once_more() -> None:
    target, found = "", set()
    for line in (ROOT / "Makefile").read_text().splitlines():
        if not line.startswith(("\t", "#")) and ":" in line:
            target = line.split(":")[0]
        if "-m pytest" in line and "$(ONCE_MORE)" in line:
            found.add(target)
    assert found == {"contract", "integration", "e2e"}
