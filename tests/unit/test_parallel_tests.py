"""What keeps tests that run at the same time out of each other's way."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster.ports import free_port
from tests.support.groups import group_of
from tests.support.once import once

ROOT = Path(__file__).parents[2]


def test_processes_that_live_at_the_same_time_choose_from_different_ports() -> None:
    ours = {free_port() for _ in range(20)}
    ask = "from tests.cluster.ports import free_port; print([free_port() for _ in range(20)])"
    done = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, check=True)
    theirs = {int(port) for port in done.stdout.strip("[]\n").split(",")}
    assert (len(ours), len(theirs)) == (20, 20), "each time another one"
    assert not ours & theirs
    assert max(ours | theirs) < 32768, "below what the kernel gives to connections"


def test_what_a_run_needs_once_is_made_by_the_first_who_asks(tmp_path: Path) -> None:
    made: list[int] = []
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda asking: once(tmp_path, "something", lambda: made.append(asking)), range(8)))
    assert len(made) == 1
    once(tmp_path, "something else", lambda: made.append(8))
    assert len(made) == 2


def test_what_could_not_be_made_is_tried_again(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        once(tmp_path, "something", _cannot)
    made: list[int] = []
    once(tmp_path, "something", lambda: made.append(1))
    assert made == [1]


def _cannot() -> None:
    raise RuntimeError


@pytest.mark.parametrize(
    ("test", "group"),
    [
        ("tests/e2e/test_rollouts.py::test_where_no_gpu_is_free_an_automatic_rollout_does_without", "gpus"),
        ("tests/e2e/test_rollouts.py::test_without_another_pod_no_request_is_lost_either[Replace-x]", "loads"),
        ("tests/e2e/test_shadow.py::test_a_good_version_passes_and_is_promoted", "loads"),
        ("tests/e2e/test_rollouts.py::test_a_version_that_does_not_load_is_given_up_at_its_deadline", ""),
    ],
    ids=["function", "parametrized", "module", "none"],
)
def test_the_group_of_a_test_is_known_by_its_name(test: str, group: str) -> None:
    assert group_of(test) == group
