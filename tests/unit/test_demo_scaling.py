"""The demo's autoscaled model: its object, what is shown of it while a load comes and goes, and the picture of it."""

from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from conch.api.model_deployment import ModelDeploymentSchema, parse
from tests.demo.model import NAMESPACE
from tests.demo.rollout_view import Account
from tests.demo.scaled import ARCHIVE, SCALED, manifest, pack
from tests.demo.scaling_picture import answers_by_second, draw
from tests.demo.scaling_view import Sample, as_line, frame, traffic
from tests.load import Result, Span
from tests.load.result import Quantiles
from tests.support.installation import VALUES

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
NONE = Quantiles(count=0, p50_ms=0, p90_ms=0, p99_ms=0, max_ms=0)
LINES_MOST = 5


def live(*, wanted: int, ready: int, reason: str = "Surge", before: int = 1) -> dict[str, Any]:
    message = "15 requests per second come now, more than 1 server carry"
    decision = {"at": "2026-01-01T00:00:00Z", "before": before, "after": wanted, "reason": reason, "message": message}
    return {
        **manifest(NAMESPACE),
        "metadata": {"name": SCALED, "namespace": NAMESPACE, "uid": "u", "generation": 1, "resourceVersion": "1"},
        "status": {
            "observedGeneration": 1,
            "desiredReplicas": wanted,
            "readyReplicas": ready,
            "autoscaling": {
                "reason": reason,
                "message": message,
                "observedAt": "2026-01-01T00:00:00Z",
                "decisions": [decision],
            },
        },
    }


def account(answered: int, p95_ms: float) -> Account:
    recent = Span(begin_seconds=0, seconds=5, answered=answered, failed=0, p50_ms=1, p95_ms=p95_ms)
    return Account(answered=answered, failed=0, recent=recent)


def result(*, after_seconds: float, answered: list[int]) -> Result:
    spans = (
        Span(begin_seconds=second, seconds=1, answered=number, failed=0, p50_ms=1, p95_ms=1)
        for second, number in enumerate(answered)
    )
    return Result(
        planned=1,
        scheduled=1,
        sent=1,
        answered=1,
        failed=0,
        failed_by_kind={},
        first_failures=(),
        lateness=NONE,
        lateness_bound_ms=100,
        on_schedule=True,
        stopped_early=True,
        began_at=(BEGAN + timedelta(seconds=after_seconds)).isoformat(),
        seconds=len(answered),
        cpu_seconds=0,
        marks={},
        groups=(),
        timeline=tuple(spans),
    )


def test_the_object_is_valid_and_the_store_has_its_file(tmp_path: Path) -> None:
    spec = ModelDeploymentSchema.model_validate({"spec": manifest(NAMESPACE)["spec"]}).spec
    assert spec.autoscaling is not None
    assert spec.autoscaling.effective_idle_seconds == 10
    _, _, host, name = spec.model.source.uri.split("/")
    assert (name, pack(tmp_path).name) == (ARCHIVE, ARCHIVE)
    assert host in yaml.safe_load(VALUES.read_text())["policy"]["sources"]["httpHosts"]


def test_a_frame_shows_servers_load_and_why() -> None:
    into = StringIO()
    Console(file=into, width=80).print(frame(parse(live(wanted=3, ready=1)), [account(75, 40)], 12.3))
    lines = into.getvalue().splitlines()
    assert len(lines) <= LINES_MOST
    assert lines[0] == "slow-digits: 1 of 3 servers (12 s)"
    assert (lines[1].count("█"), lines[1].count("░")) == (8, 16), "ready, and on their way"
    assert "15 requests/s, 0 of 75 failed, p95 40 ms" in lines[2]
    assert "Surge: 15 requests per second come now" in lines[3]


def test_a_line_changes_with_the_counts_and_the_decision_alone() -> None:
    line = as_line(parse(live(wanted=3, ready=1)))
    assert line.startswith("1 of 3 servers; 1 -> 3, Surge: 15 requests per second")
    assert as_line(parse(live(wanted=3, ready=2))) != line


def test_the_traffic_is_that_of_all_loads() -> None:
    assert traffic([]) == "no requests"
    assert traffic([account(15, 40), account(60, 90)]) == "15 requests/s, 0 of 75 failed, p95 90 ms"


def test_the_picture_has_the_answers_of_all_loads_at_their_time(tmp_path: Path) -> None:
    results = [result(after_seconds=0, answered=[3, 3, 3]), result(after_seconds=1.1, answered=[12, 12])]
    assert answers_by_second(results, BEGAN) == {0.0: 3, 1.0: 15, 2.0: 15}
    samples = [Sample(at=BEGAN + timedelta(seconds=second), wanted=1, ready=1) for second in range(4)]
    path = tmp_path / "folder" / "demo.png"
    draw(samples, results, path)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("wanted", "ready"), [(0, 1), (0, 0), (2, 3)])
def test_servers_on_their_way_out_are_none_on_their_way_in(wanted: int, ready: int) -> None:
    into = StringIO()
    Console(file=into, width=80).print(frame(parse(live(wanted=wanted, ready=ready)), [], 1.0))
    assert "░" not in into.getvalue()
