"""What the operator asks of the API server is counted, not timed, on 50 objects: a regression shows on any machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

OBJECTS = 50
ROOT = Path(__file__).parents[2]


@pytest.mark.alone
@pytest.mark.timeout(600)
def test_the_operator_keeps_within_its_budget_of_requests(tmp_path: Path) -> None:
    result = tmp_path / "counts.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.perf.scale", "--counts-only", "--objects", str(OBJECTS)),
            *("--edits", "20", "--idle-seconds", "60", "--json", str(result)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(result.read_text())["figures"]
    budgets: dict[str, float] = yaml.safe_load((ROOT / "tests/perf/scale/budgets.yaml").read_text())
    over = {name: (figures[name], most) for name, most in budgets.items() if figures[name] > most}
    assert not over, f"(measured, budget): {over}\n{done.stdout}"
