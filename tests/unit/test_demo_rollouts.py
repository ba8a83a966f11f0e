"""The demo's rollouts: its versions, what it shows of a rollout under load, and what passes for well."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from matplotlib.figure import Figure
from rich.console import Console

from conch.api.model_deployment import ModelDeploymentSchema, parse
from conch.api.status import ModelDeploymentStatus
from conch.core.revision import revision_of
from conch.rollouts.progress import Progress, look
from tests.cluster.client import Cluster
from tests.demo import picture, rollout_view, rollouts
from tests.demo.colours import of_version
from tests.demo.model import (
    BAD_VERSION,
    FIRST_VERSION,
    GOOD_VERSION,
    IN_PLACE_VERSION,
    NAME,
    NAMESPACE,
    manifest,
    pack,
)
from tests.demo.recording import Recording
from tests.demo.rollout_view import FRAME_LINES_MOST, Account, NotInTimeError, RolloutView, frame
from tests.demo.rollouts import Rollouts, fates, otherwise
from tests.load import Load, Result, Span
from tests.load.result import Group, Quantiles
from tests.support.installation import VALUES

Json = dict[str, Any]

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
CONFIG_MAP_BYTES_MOST = 1024 * 1024
VERSIONS = [FIRST_VERSION, GOOD_VERSION, BAD_VERSION, IN_PLACE_VERSION]
LATENCY = Quantiles(count=1, p50_ms=2, p90_ms=3, p99_ms=4, max_ms=5)


def revision(version: int) -> str:
    return revision_of(ModelDeploymentSchema.model_validate({"spec": manifest(version)["spec"]}).spec)


def served(version: int) -> Json:
    return {"revision": revision(version), "version": version, "workload": f"w{version}"}


def seen(
    version: int, phase: str, weights: Mapping[int, int], *, stable: int, ready: bool = False, **of_rollout: Any
) -> Json:
    """The object as the API server has it: on the way from the version before to this one, or past that."""
    over = phase in ("Draining", "Done", "Halted")
    rejected = [{"revision": revision(version), "cause": "AnalysisFailed", "message": "bad", "at": _stamp(9)}]
    return {
        **manifest(version),
        "metadata": {"name": NAME, "namespace": NAMESPACE, "uid": "u", "generation": 2, "resourceVersion": "1"},
        "status": {
            "observedGeneration": 2,
            "desiredReplicas": 1,
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True" if ready else "False",
                    "reason": "Serving" if ready else "Analysing",
                    "lastTransitionTime": _stamp(0),
                }
            ],
            "stable": served(stable),
            "candidate": None if over else served(version),
            "rejected": rejected if phase == "Halted" else [],
            "traffic": [
                {"revision": revision(each), "workload": f"w{each}", "weight": weight}
                for each, weight in weights.items()
            ],
            "rollout": {
                "id": f"r{version}",
                "revision": revision(version),
                "fromRevision": revision(version - 1),
                "strategy": "Surge",
                "steps": [{"weight": 25, "pauseSeconds": 5}, {"weight": 50, "pauseSeconds": 5}],
                "phase": phase,
                "weight": weights.get(version, 0),
                "startedAt": _stamp(0),
                **of_rollout,
            },
        },
    }


def _stamp(second: int) -> str:
    return (BEGAN + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%SZ")


def check(name: str, verdict: str, message: str = "0 % of 43 requests failed; at most 2 % may") -> Json:
    return {"name": name, "verdict": verdict, "message": message, "samples": 43}


SHIFTING = seen(
    2,
    "Shifting",
    {1: 75, 2: 25},
    stable=1,
    checks=[
        check("goldenSet", "Pass"),
        check("successRate", "Inconclusive"),
        check("latency p95 absolute", "Inconclusive"),
    ],
)
PROMOTED = seen(2, "Done", {2: 100}, stable=2, ready=True, step=2)
BAD_SHIFTING = seen(3, "Shifting", {2: 75, 3: 25}, stable=2, checks=[check("successRate", "Inconclusive")])
BACK = seen(
    3,
    "Halted",
    {2: 100},
    stable=2,
    cause="AnalysisFailed",
    message="20 % of 40 requests failed; at most 2 % may",
    checks=[check("successRate", "Fail", "20 % of 40 requests failed; at most 2 % may")],
)
RESTORED = {**BACK, "spec": manifest(2)["spec"]} | {
    "status": {**BACK["status"], "conditions": PROMOTED["status"]["conditions"]}
}


def account(*, answered: int = 500, failed: int = 0) -> Json:
    recent = {"begin_seconds": 5, "seconds": 5, "answered": 195, "failed": failed, "p50_ms": 3.14, "p95_ms": 8}
    return {"answered": answered, "failed": failed, "recent": recent}


def shown(body: Json, load: Json, *, width: int = 80) -> list[str]:
    into = StringIO()
    progress, recording = look(parse(body)), Recording()
    recording.see(progress.owner.status, BEGAN)
    weights = recording.weights(progress.owner.status)
    Console(file=into, width=width).print(frame(progress, Account.of(load), weights, 14.2))
    return into.getvalue().splitlines()


def test_every_version_is_another_revision_of_a_valid_object() -> None:
    assert len({revision(version) for version in VERSIONS}) == len(VERSIONS)


def test_the_store_has_the_file_of_every_version_and_the_installation_allows_it(tmp_path: Path) -> None:
    files = pack(tmp_path)
    values = yaml.safe_load(VALUES.read_text())["policy"]
    assert sum(file.stat().st_size for file in files) < CONFIG_MAP_BYTES_MOST / 2
    assert {"onnxruntime", "python"} <= set(values["models"]["backends"])
    for version, file in zip((GOOD_VERSION, BAD_VERSION, IN_PLACE_VERSION), files, strict=True):
        _, _, host, name = manifest(version)["spec"]["model"]["source"]["uri"].split("/")
        assert name == file.name
        assert host in values["sources"]["httpHosts"]


def test_a_frame_shows_step_weights_load_and_verdicts() -> None:
    lines = shown(SHIFTING, account(failed=3))
    text = "\n".join(lines)
    assert lines[0] == "digits: Shifting, step 1 of 3, Surge (14 s)"
    bars = {int(line.split()[1]): line.count("█") for line in lines if line.startswith("version ")}
    assert bars == {1: 30, 2: 10}
    assert "40 requests/s, 3 of 503 failed (3 lately), p50 3.1 p95 8.0 ms" in text
    for name, verdict in (("goldenSet", "Pass"), ("successRate", "Inconclusive")):
        assert re.search(rf"^{name} +{verdict} ", text, flags=re.MULTILINE)
    assert "waits until checks pass (successRate, latency p95 absolute)" in text


def test_a_frame_says_why_it_went_back() -> None:
    text = "\n".join(shown(BACK, account(failed=9)))
    assert "Halted" in text
    assert "back, AnalysisFailed: 20 % of 40 requests failed; at most 2 % may" in text


def test_a_frame_before_the_first_rollout_has_the_one_version_alone() -> None:
    body = {**SHIFTING, "status": {**PROMOTED["status"], "rollout": None, "stable": served(1), "traffic": []}}
    body["status"]["traffic"] = [{"revision": revision(1), "workload": "w1", "weight": 100}]
    lines = shown(body, account())
    assert lines[0] == "digits: no rollout yet (14 s)"
    assert [line.count("█") for line in lines if "version" in line] == [40]


def test_a_frame_fits_a_small_terminal_whatever_it_has_to_say() -> None:
    long = "word " * 200
    checks = [check(f"check {number}", "Inconclusive", long) for number in range(4)]
    steps: Json = {"paused": True, "deadline": _stamp(600), "observedSince": _stamp(1)}
    body = seen(3, "Shifting", {1: 10, 2: 65, 3: 25}, stable=2, checks=checks, **steps)
    lines = shown(body, account(answered=10**6, failed=10**5))
    assert len(lines) <= FRAME_LINES_MOST
    assert max(map(len, lines)) <= 80


def test_a_recording_finds_what_happened_in_what_it_sees() -> None:
    recording = recorded()
    assert recording.versions == [1, 2, 3]
    assert [event.words for event in recording.events] == [
        "version 2 applied",
        "version 2 promoted",
        "version 3 applied",
        "version 3 rolled back",
    ]
    assert recording.samples[1].weights == {1: 75, 2: 25}
    assert recording.samples[-1].weights == {2: 100}


def test_a_recording_takes_what_was_there_before_for_no_event() -> None:
    recording = Recording()
    for second in range(2):
        recording.see(_status(BACK), BEGAN + timedelta(seconds=second))
    assert recording.events == []


def _status(body: Json) -> ModelDeploymentStatus:
    return parse(body).status


def recorded() -> Recording:
    """Both rollouts, looked at every five seconds."""
    recording = Recording()
    first = seen(2, "Provisioning", {1: 100}, stable=1)
    for number, body in enumerate((first, SHIFTING, PROMOTED, PROMOTED, BAD_SHIFTING, BACK, RESTORED)):
        at = BEGAN + timedelta(seconds=5 * number)
        if body is first:
            recording.mark("version 2 applied", at)
        if body is BAD_SHIFTING:
            recording.mark("version 3 applied", at)
        recording.see(_status(body), at + timedelta(seconds=1))
    return recording


def result(*, failures: Mapping[int, int] | None = None, seconds: int = 35, **changes: Any) -> Result:
    """Of a load of 40 requests a second; `failures` by the second."""
    failures = {22: 2, 24: 3} if failures is None else failures
    timeline = tuple(
        Span(
            begin_seconds=second,
            seconds=1,
            answered=0 if second == 12 else 40 - failures.get(second, 0),
            failed=failures.get(second, 0),
            p50_ms=0 if second == 12 else 3 + second % 3,
            p95_ms=0 if second == 12 else 8 + second % 5,
        )
        for second in range(seconds)
    )
    lost = sum(failures.values())
    groups = tuple(
        Group(protocol=protocol, phase=phase, sent=100 + failed, answered=100, failed=kinds, latency=LATENCY)
        for phase, failed, kinds in (("", 0, {}), ("version 2", 0, {}), ("version 3", lost, {"HTTP 500": lost}))
        for protocol in ("grpc", "http")
    )
    fields = {
        "planned": 1400,
        "scheduled": 1400,
        "sent": 1400,
        "answered": 1400 - lost,
        "failed": lost,
        "failed_by_kind": {"HTTP 500": lost},
        "first_failures": (),
        "lateness": LATENCY,
        "lateness_bound_ms": 100,
        "on_schedule": True,
        "stopped_early": True,
        "began_at": BEGAN.isoformat(timespec="milliseconds"),
        "seconds": seconds,
        "cpu_seconds": 1,
        "marks": {},
        "groups": groups,
        "timeline": timeline,
    }
    return Result.model_validate(fields | changes)


def test_the_picture_is_a_png_of_some_size(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "demo.png"
    picture.draw(recorded(), result(), path)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n")
    assert len(content) > 20_000


def test_the_picture_has_a_series_for_each_version_and_marks_for_each_event() -> None:
    drawn = picture.figure(recorded(), result())
    upper, lower, latency = drawn.axes
    assert _legend(drawn, 0) == ["version 1", "version 2", "version 3"]
    assert len(upper.collections) == 3
    assert len({of_version(version) for version in VERSIONS}) == 4
    assert [text.get_text() for text in upper.texts] == [event.words for event in recorded().events]
    for axes in (upper, lower):
        marks = [line for line in axes.lines if line.get_linestyle() == "--"]
        assert [float(cast(Sequence[float], line.get_xdata())[0]) for line in marks] == [0, 11, 20, 26]
    # Bars are rectangles, which matplotlib's types do not say.
    assert [bar.get_height() for bar in lower.patches if bar.get_height()] == [2, 3]  # type: ignore[attr-defined]  # matplotlib's stubs know only the base class
    p50, p95 = latency.lines
    assert len(cast(Sequence[float], p50.get_ydata())) == len(cast(Sequence[float], p95.get_ydata())) == 34, (
        "where nothing was answered there is no latency"
    )
    assert _legend(drawn, 2) == ["failed per second", "p50", "p95"]
    assert upper.get_xlim() == lower.get_xlim() == (0, 35)


def _legend(drawn: Figure, number: int) -> list[str]:
    legend = drawn.axes[number].get_legend()
    assert legend
    return [text.get_text() for text in legend.get_texts()]


def test_a_clock_that_was_set_meanwhile_leaves_the_picture_readable(tmp_path: Path) -> None:
    recording = recorded()
    recording.mark("in another year", BEGAN + timedelta(days=400))
    path = tmp_path / "demo.png"
    picture.draw(recording, result(), path)
    assert "in another year" not in [text.get_text() for text in picture.figure(recording, result()).axes[0].texts]


def test_a_picture_of_nothing_is_empty_and_no_error(tmp_path: Path) -> None:
    path = tmp_path / "demo.png"
    picture.draw(Recording(), result(seconds=1).model_copy(update={"timeline": ()}), path)
    assert path.stat().st_size > 0


def progress(body: Json) -> Progress:
    return look(parse(body))


def test_only_what_the_demo_means_to_show_passes_for_well() -> None:
    failed_otherwise = seen(3, "Halted", {2: 100}, stable=2, cause="CandidateFailed", message="no such backend")
    good_back = seen(2, "Halted", {1: 100}, stable=1, cause="AnalysisFailed", message="too slow")
    bad_there = seen(3, "Done", {3: 100}, stable=3, ready=True, step=2)
    assert otherwise(progress(PROMOTED), GOOD_VERSION) == ""
    assert otherwise(progress(BACK), BAD_VERSION) == ""
    assert "did not take over" in otherwise(progress(good_back), GOOD_VERSION)
    assert "was not rolled back" in otherwise(progress(bad_there), BAD_VERSION)
    assert "no such backend" in otherwise(progress(failed_otherwise), BAD_VERSION)


def test_the_requests_are_told_by_phase() -> None:
    assert fates(result()) == [
        "before: 200 of 200 requests answered",
        "version 2: 200 of 200 requests answered",
        "version 3: 200 of 210 requests answered; 10 failed: HTTP 500",
    ]
    assert "too busy" in fates(result(on_schedule=False))[-1]


class World:
    """A cluster and a load that go on with each look; the last state stays."""

    def __init__(self, *bodies: Json) -> None:
        self.bodies = list(bodies)
        self.answered = 0
        self.deployed: list[int] = []
        self.marks: list[str] = []
        self.pods = ["digits-w2-a", "digits-w2-b"]

    def get(self, kind: str, *_: str) -> Json:
        if kind == "pods":
            return {"items": [{"metadata": {"name": name}} for name in self.pods]}
        return self.bodies.pop(0) if len(self.bodies) > 1 else self.bodies[0]

    def kubectl(self, *_: str, input: str) -> None:
        self.deployed.append(yaml.safe_load(input)["spec"]["model"]["version"])

    def progress(self) -> Json:
        self.answered += 100
        return account(answered=self.answered)

    def mark(self, phase: str) -> None:
        self.marks.append(phase)

    def stop(self) -> Result:
        return result(began_at=(datetime.now(UTC) - timedelta(seconds=30)).isoformat())


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_view, "_POLL_SECONDS", 0)


def made(world: World) -> tuple[Rollouts, StringIO]:
    into = StringIO()
    console = Console(file=into, width=100)
    return Rollouts(cast(Cluster, world), cast(Load, world), console), into


QUIET = {**PROMOTED, "spec": manifest(1)["spec"]} | {
    "status": {
        **PROMOTED["status"],
        "stable": served(1),
        "rollout": None,
        "traffic": [{"revision": revision(1), "workload": "w1", "weight": 100}],
    }
}


def test_both_rollouts_are_shown_told_and_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(rollouts, "PICTURE", tmp_path / "demo.png")
    monkeypatch.setattr(rollouts, "REPOSITORY", tmp_path)
    world = World(QUIET, QUIET, SHIFTING, PROMOTED, BAD_SHIFTING, BACK, RESTORED)
    demo, into = made(world)
    demo.canary()
    demo.bad_version()
    demo.finish()
    assert world.deployed == [2, 3, 2]
    assert world.marks == ["version 2", "version 3", "afterwards"]
    lines = into.getvalue().splitlines()
    assert any("weight 25 %" in line and "goldenSet: Pass" in line and "requests/s" in line for line in lines)
    assert any("AnalysisFailed: 20 % of 40 requests failed" in line for line in lines)
    assert lines[-1] == "The picture: demo.png"
    assert (tmp_path / "demo.png").stat().st_size > 0


def test_what_goes_otherwise_ends_the_demo_here_and_is_told_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    back = seen(2, "Halted", {1: 100}, stable=1, cause="CandidateFailed", message="no room")
    demo, _ = made(World(QUIET, QUIET, back))
    with pytest.raises(SystemExit, match=r"version 2 did not take over.*no room"):
        demo.canary()
    monkeypatch.setenv("CLUSTER", "existing")
    world = World(QUIET, QUIET, back)
    demo, into = made(world)
    demo.canary()
    assert "Not as on the local cluster: version 2 did not take over" in into.getvalue()
    world.bodies = [{**BACK, "status": {**BACK["status"], "stable": served(1)}}, RESTORED]
    demo.bad_version()
    assert world.deployed == [2, 3, 1], "back to what serves"


def test_another_version_in_the_same_pods_is_shown_as_such() -> None:
    turned = seen(4, "Done", {4: 100}, stable=4, ready=True, step=2)
    in_place = seen(4, "Done", {4: 100}, stable=4, ready=True, step=2, strategy="InPlace")
    world = World(in_place)
    demo, into = made(world)
    demo.in_place()
    assert world.deployed == [4]
    assert "The same pods as before: digits-w2-a, digits-w2-b" in into.getvalue()
    demo, _ = made(World(turned))
    with pytest.raises(SystemExit, match="did not take over in place"):
        demo.in_place()


def test_what_never_comes_is_told_with_how_far_it_is() -> None:
    world = World(SHIFTING)
    into = Console(file=StringIO())
    view = RolloutView(
        cast(Cluster, world), NAMESPACE, NAME, load=cast(Load, world), recording=Recording(), console=into
    )
    with pytest.raises(NotInTimeError, match="not there after 0 s: Shifting, step 1 of 2, weight 25 %"):
        view.watch(lambda seen, _: seen.exit_code is not None, limit_seconds=0)
