"""`conch simulate`: what it asks for, what it prints and draws, and what it says where it cannot."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from conch.cli import app
from conch.client.errors import ClientError
from conch.core.scaling.service_curve import ServiceCurve
from conch.core.scaling.settings import Metric
from conch.kube.errors import ApiError
from conch.simulate import asked as asked_module
from conch.simulate import loads, picture
from conch.simulate.asked import Known, begun, known_of, settle
from conch.simulate.fleet import FleetSettings
from conch.simulate.options import Options, duration_seconds, service_curve
from conch.simulate.replay import Fixed, simulate
from conch.simulate.trace import Trace

CURVE = "40,10,8"
OBJECT = {
    "metadata": {"name": "sentiment", "namespace": "team-a"},
    "spec": {
        "gpu": {"count": 2},
        "autoscaling": {
            "minReplicas": 2,
            "maxReplicas": 9,
            "objective": {"latencyMs": 400, "percentile": 90},
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
        },
    },
    "status": {
        "autoscaling": {
            "curve": {"baseMilliseconds": 20, "perItemMilliseconds": 5, "maxBatch": 16, "instances": 2},
            "coldStartSeconds": 33.5,
        }
    },
}
LEARNT = ServiceCurve(base_seconds=0.02, per_item_seconds=0.005, max_batch=16, instances=2)


def options(**changes: Any) -> Options:
    return Options(trace=Path("access.csv"), **changes)


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """Four minutes at 10 requests per second."""
    path = tmp_path / "access.csv"
    seconds = loads.steady(10, 240, seed=1).seconds
    path.write_text("path,time\n" + "".join(f"/a,{1_767_225_600 + at:.6f}\n" for at in seconds))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["simulate", *map(str, arguments)])


@pytest.mark.parametrize(("text", "seconds"), [("200ms", 0.2), ("45s", 45), ("1.5m", 90), ("2 h", 7200)])
def test_durations(text: str, seconds: float) -> None:
    assert duration_seconds("--objective", text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["200", "0s", "-1s", "1d", "", "ms", "1s1s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ClientError, match=r"--cold-start .*give a time with its unit"):
        duration_seconds("--cold-start", text)


def test_curves() -> None:
    expected = ServiceCurve(base_seconds=0.005, per_item_seconds=0.0025, max_batch=8)
    assert service_curve("5,2.5,8") == expected
    assert service_curve("5, 2.5, 8, 2").instances == 2


@pytest.mark.parametrize(
    "text", ["5,2.5", "5,2.5,8,1,1", "a,b,c", "0,0,8", "-1,2,8", "5,2,0", "5,2,8,0", "nan,1,8", "inf,1,8"]
)
def test_what_is_no_curve(text: str) -> None:
    with pytest.raises(ClientError, match="give A,B,MAX_BATCH"):
        service_curve(text)


def test_options_alone() -> None:
    wanted = settle(options(objective="200ms", curve=CURVE), Known())
    assert wanted.fleet.objective_seconds == 0.2
    assert wanted.fleet.cold_start_seconds == 60
    assert wanted.scaling.metric is Metric.LATENCY
    assert (wanted.scaling.value, wanted.scaling.percentile) == (200, 95)
    assert (wanted.bounds.minimum, wanted.bounds.maximum, wanted.scaling.idle_seconds) == (1, 100, None)
    assert wanted.gpus == 1


def test_what_is_not_given_is_the_objects() -> None:
    wanted = settle(options(name="sentiment"), known_of(OBJECT))
    assert wanted.fleet.curve == LEARNT
    assert wanted.fleet.cold_start_seconds == 33.5
    assert (wanted.fleet.objective_seconds, wanted.scaling.percentile) == (0.4, 90)
    assert (wanted.bounds.minimum, wanted.bounds.maximum, wanted.gpus) == (2, 9, 2)
    assert wanted.scaling.behavior is not None


CLAIM = {"name": "gpu", "resourceClaimTemplateName": "one-gpu"}


@pytest.mark.parametrize(
    ("gpu", "gpus"),
    [
        ({}, 1),
        ({"count": 0}, 1),
        ({"count": 4}, 4),
        ({"claims": []}, 1),
        ({"claims": [CLAIM, CLAIM]}, 2),
        ({"count": 4, "claims": [CLAIM]}, 5),
    ],
)
def test_a_replica_has_the_gpus_that_it_counts_and_one_for_each_claim(gpu: dict[str, Any], gpus: int) -> None:
    assert known_of({"spec": {"gpu": gpu}}).gpus == gpus


def test_what_is_given_goes_before_the_objects() -> None:
    given = options(
        name="sentiment",
        objective="1s",
        percentile=99.0,
        minimum=0,
        maximum=4,
        idle="2m",
        cold_start="5s",
        gpus=1,
        curve=CURVE,
    )
    wanted = settle(given, known_of(OBJECT))
    assert wanted.fleet.curve.max_batch == 8
    assert (wanted.fleet.objective_seconds, wanted.fleet.cold_start_seconds) == (1, 5)
    assert (wanted.scaling.minimum, wanted.scaling.maximum, wanted.scaling.idle_seconds) == (0, 4, 120)
    assert (wanted.scaling.percentile, wanted.gpus) == (99, 1)


@pytest.mark.parametrize(
    ("changes", "known", "words"),
    [
        pytest.param({"curve": CURVE}, Known(), "what is late", id="no objective"),
        pytest.param({"objective": "1s"}, Known(), "how fast is a replica", id="no curve"),
        pytest.param({"objective": "1s", "name": "a"}, Known(), "a has no learnt curve yet", id="nothing learnt"),
        pytest.param({"objective": "50ms", "curve": CURVE}, Known(), "takes 50 ms by the curve", id="hopeless"),
        pytest.param(
            {"objective": "1s", "curve": CURVE, "minimum": 5, "maximum": 4}, Known(), "--min 5 is more", id="bounds"
        ),
        pytest.param(
            {"objective": "1s", "curve": CURVE, "minimum": 10, "name": "a"},
            known_of(OBJECT),
            "--max 9",
            id="its bounds",
        ),
    ],
)
def test_what_cannot_be_asked(changes: dict[str, Any], known: Known, words: str) -> None:
    with pytest.raises(ClientError, match=words):
        settle(options(**changes), known)


def test_an_object_without_autoscaling_says_nothing() -> None:
    assert known_of({"metadata": {"name": "a"}, "spec": {"model": {}}}) == Known()


def test_an_object_of_another_version_is_refused() -> None:
    strange = {"metadata": {"name": "a"}, "spec": {"autoscaling": {"maxReplicas": 3, "tomorrow": 1}}}
    with pytest.raises(ClientError, match="ModelDeployment a has an autoscaling that this conch does not know"):
        known_of(strange)


def test_it_begins_with_what_the_first_minute_needs() -> None:
    wanted = settle(options(objective="1s", curve=CURVE, maximum=5), Known())
    ceiling = wanted.fleet.curve.ceiling
    assert begun(wanted, loads.steady(0.5 * ceiling, 300, seed=1)).fleet.replicas == 1
    assert begun(wanted, loads.steady(1.5 * ceiling, 300, seed=1)).fleet.replicas == 3
    assert begun(wanted, loads.steady(9 * ceiling, 300, seed=1)).fleet.replicas == 5
    assert begun(wanted, loads.steady(ceiling, 300, seed=1), 4).fleet.replicas == 4


def test_prints_a_table(csv: Path) -> None:
    result = run(
        "--trace", csv, "--objective", "500ms", "--curve", CURVE, "--gpu-hour-cost", "2.5", "--cold-start", "5s"
    )
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("access.csv: 2,")
    assert "95 % within 500 ms, 1 to 100 replicas, 5 s to start one, 66.7 requests/s at most each" in lines[0]
    assert " ".join(lines[2].split()) == "RULE SETTING LATE FAILED P95 REPLICA-HOURS COST MOST TURNS"
    rules = [line.split("  ")[0] for line in lines[3:9]]
    assert rules == ["Conch", "HPA on in-flight", "HPA on rps", "HPA on queue time", "KPA", "KEDA"]
    assert "chosen afterwards" in lines[-1]


def test_prints_json(csv: Path) -> None:
    result = run("--trace", csv, "--objective", "500ms", "--curve", CURVE, "--no-compare", "--json", "--start", 3)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["trace"]["began"].startswith("2026-01-01T00:00:0")
    assert told["objective"] == {"latencyMs": 500, "percentile": 95}
    assert told["curve"] == {"baseMilliseconds": 40, "perItemMilliseconds": 10, "maxBatch": 8, "instances": 1}
    (rule,) = told["rules"]
    assert rule["rule"] == "Conch"
    assert rule["setting"] is None
    assert rule["cost"] is None
    assert rule["lateShare"] < 0.01
    assert 50 <= rule["latencyMs"]["p50"] <= rule["latencyMs"]["p99"] < 500
    assert rule["mostReplicas"] >= 3
    assert 240 / 3600 * 0.9 < rule["replicaHours"] < 4 * 240 / 3600


def test_draws(csv: Path, tmp_path: Path) -> None:
    into = tmp_path / "run.html"
    result = run("--trace", csv, "--objective", "500ms", "--curve", CURVE, "--no-compare", "--output", into)
    assert result.exit_code == 0, result.output
    page = into.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.count("<svg") == 1
    assert "RULE" in page
    assert "http-equiv" not in page
    assert "<?xml" not in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--output", "run.pdf"), "ends in .png or .html"),
        (("--output", "missing/run.png"), "there is no folder missing"),
        (("--column", "nothing"), "has no column nothing; there are: path, time"),
        (("--objective", "soon"), "give a time with its unit"),
    ],
)
def test_says_why_not(
    csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("--trace", csv, "--objective", "500ms", "--curve", CURVE, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""


def test_says_that_matplotlib_is_missing(csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    result = run("--trace", csv, "--objective", "1s", "--curve", CURVE, "--output", tmp_path / "run.png")
    assert result.exit_code == 2
    assert "pip install 'conch[simulate]'" in result.stderr


class ApiServer:
    """Has one object."""

    async def get(self, _resource: object, namespace: str, name: str) -> dict[str, Any]:
        if (namespace, name) != ("team-a", "sentiment"):
            raise ApiError(403, "Forbidden", "no", what=name)
        return OBJECT


@pytest.fixture
def api_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """What --from connects to."""

    @asynccontextmanager
    async def connected(context: str | None, namespace: str | None) -> AsyncIterator[tuple[ApiServer, str]]:
        assert context is None
        yield ApiServer(), namespace or "default"

    monkeypatch.setattr(asked_module, "connected", connected)


@pytest.mark.usefixtures("api_server")
def test_takes_what_was_learnt_from_the_object(csv: Path) -> None:
    result = run("--trace", csv, "--from", "sentiment", "-n", "team-a", "--no-compare", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["curve"]["maxBatch"] == 16
    assert told["objective"] == {"latencyMs": 400, "percentile": 90}
    assert (told["minReplicas"], told["maxReplicas"], told["coldStartSeconds"]) == (2, 9, 33.5)


@pytest.mark.usefixtures("api_server")
def test_says_that_the_object_cannot_be_read(csv: Path) -> None:
    result = run("--trace", csv, "--from", "other", "-n", "team-a")
    assert result.exit_code == 2
    assert "may not" in result.stderr or "not allowed" in result.stderr, result.stderr


def test_the_picture_shows_load_replicas_and_what_was_late() -> None:
    trace = loads.step(2, 12, 300, 600, seed=1)
    settings = FleetSettings(curve=service_curve("100,0,1"), objective_seconds=0.5)
    outcomes = [simulate(trace, Fixed(count), settings) for count in (1, 3)]
    drawn = picture.figure(trace, outcomes)
    load, replicas, late = drawn.axes
    assert load.get_ylabel() == "requests/s"
    assert [text.split(":")[0] for text in replicas.get_legend_handles_labels()[1]] == ["fixed", "fixed"]
    assert late.get_ylabel() == "late per 2 s"
    assert late.get_xlim() == (0, 10)
    drawn_late = sum(patch.get_data().values.sum() for patch in late.patches)  # type: ignore[attr-defined]  # matplotlib's stubs know only the base class
    assert drawn_late == outcomes[0].late.sum() + outcomes[1].late.sum() > 0


@pytest.mark.parametrize(
    ("span", "width"), [(0, 1), (400, 1), (401, 2), (3600, 10), (86_400, 300), (40 * 86_400, 14_400)]
)
def test_bins_are_easily_read(span: float, width: float) -> None:
    edges = picture.bins(span)
    assert edges[1] - edges[0] == width
    assert edges[-1] > span


def test_draws_a_png(tmp_path: Path) -> None:
    trace = loads.steady(1, 60, seed=1)
    settings = FleetSettings(curve=service_curve("100,0,1"), objective_seconds=0.5)
    outcomes = [simulate(trace, Fixed(1), settings)]
    picture.draw(trace, outcomes, tmp_path / "run.PNG", summary="")
    assert (tmp_path / "run.PNG").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ClientError, match="the picture cannot be written to"):
        picture.draw(trace, outcomes, tmp_path / "missing" / "run.html", summary="")


def test_a_page_shows_no_markup_of_a_files_name() -> None:
    trace = Trace(name="<script>.csv", seconds=loads.steady(1, 60, seed=1).seconds, span_seconds=60)
    settings = FleetSettings(curve=service_curve("100,0,1"), objective_seconds=0.5)
    drawn = picture.figure(trace, [simulate(trace, Fixed(1), settings)])
    page = picture.page(trace, drawn, "<b>")
    assert "<script>" not in page
    assert "<b>" not in page
