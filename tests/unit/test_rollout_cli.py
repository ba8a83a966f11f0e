"""`conch promote|abort|retry|pause|resume` and `conch rollout`, with an API server and an operator that do as told."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from conch.api import names
from conch.api.model_deployment import parse, parse_spec
from conch.api.rollout import RolloutPhase
from conch.api.spec import ModelDeploymentSpec
from conch.cli import app
from conch.core.desired.object import owner_reference
from conch.core.desired.workload_record import record_data
from conch.core.observed_child import WorkloadRecord
from conch.core.revision import revision_of
from conch.core.rollout.commands import obey
from conch.kube import resources
from conch.kube.errors import ApiError, ApiUnavailableError
from conch.kube.resources import Resource
from conch.rollouts import asking, reading, status
from conch.rollouts.printing import as_text
from conch.rollouts.progress import Place, look
from conch.rollouts.revisions import Standing, history
from conch.rollouts.screen import as_line, screen
from tests.unit.test_why_chain import body, condition

Json = dict[str, Any]

NOW = datetime(2026, 1, 1, 0, 10, tzinfo=UTC)
SPEC = {"model": {"version": 4, "source": {"uri": "https://models.example/b.onnx"}}}
STABLE = {"revision": "r3", "version": 3, "workload": "w3"}
STEPS = [{"weight": 10, "pauseSeconds": 60}, {"weight": 50, "pause": "UntilPromoted"}]


def revision(spec: Mapping[str, Any] = SPEC) -> str:
    read = parse_spec(spec)
    assert isinstance(read, ModelDeploymentSpec)
    return revision_of(read)


WANTED = revision()
CANDIDATE = {"revision": WANTED, "version": 4, "workload": "w4"}
REJECTED = {"revision": WANTED, "cause": "AnalysisFailed", "message": "too slow", "at": "2026-01-01T00:05:00Z"}


def rolling(phase: str = "Shifting", **changes: Any) -> Json:
    """`status.rollout`, at its second step unless told otherwise."""
    made = {
        "id": "w4",
        "revision": WANTED,
        "fromRevision": "r3",
        "strategy": "Surge",
        "strategyReason": "as spec.rollout.strategy says",
        "steps": STEPS,
        "phase": phase,
        "step": 1,
        "weight": 50,
        "stableReplicas": 2,
        "candidateReplicas": 1,
        "startedAt": "2026-01-01T00:00:00Z",
        **changes,
    }
    return {key: value for key, value in made.items() if value is not None}


def under_way(phase: str = "Shifting", *, spec: Json | None = None, status: Json | None = None, **changes: Any) -> Json:
    """An object with a rollout from version 3 to version 4."""
    told: Json = {
        "desiredReplicas": 2,
        "readyReplicas": 3,
        "pods": {"ready": 1},
        "stable": STABLE,
        "candidate": CANDIDATE,
    }
    return body(spec=SPEC | (spec or {}), rollout=rolling(phase, **changes), **(told | (status or {})))


def over(phase: str = "Done", **changes: Any) -> Json:
    """An object whose rollout is over."""
    of_done: Json = (
        {"stable": CANDIDATE} if phase in ("Done", "Draining") else {"stable": STABLE, "rejected": [REJECTED]}
    )
    return under_way(phase, status={"candidate": None, "readyReplicas": 2} | of_done, **changes)


@dataclass
class Cluster:
    """What the API server knows; `operator` acts before each read."""

    owner: Json
    operator: Callable[[Json], None] = lambda _: None
    records: list[Json] = field(default_factory=list)
    before_patch: list[Callable[[Json], None]] = field(default_factory=list)
    patches: list[Json] = field(default_factory=list)
    reads: list[Exception | None] = field(default_factory=list)
    """What goes wrong with the next reads; None: nothing."""
    list_error: Exception | None = None
    contexts: list[str | None] = field(default_factory=list)

    async def connect(self, context: str | None) -> tuple["Cluster", str]:
        self.contexts.append(context)
        return self, "team-a"

    async def close(self) -> None:
        """There is no connection."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Json:
        if self.reads and (error := self.reads.pop(0)):
            raise error
        if resource is not resources.MODEL_DEPLOYMENTS or name != "sentiment":
            raise ApiError(404, "NotFound", f"{name} not found", what=namespace)
        if self.patches:
            self.operator(self.owner)
        return deepcopy(self.owner)

    async def merge_patch(
        self, resource: Resource, namespace: str, name: str, patch: Json, *, field_manager: str
    ) -> Json:
        assert (resource, namespace, name) == (resources.MODEL_DEPLOYMENTS, "team-a", "sentiment")
        assert field_manager not in (names.FIELD_MANAGER, names.STATUS_FIELD_MANAGER)
        if self.before_patch:
            self.before_patch.pop(0)(self.owner)
        metadata = self.owner["metadata"]
        if patch["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified", what=name)
        changed(self.owner)
        metadata.setdefault("annotations", {}).update(patch["metadata"]["annotations"])
        self.patches.append(patch)
        return self.owner

    async def pages(self, resource: Resource, **where: Any) -> AsyncIterator[Json]:
        if self.list_error:
            raise self.list_error
        if resource is resources.CONTROLLER_REVISIONS:
            assert where["label_selector"] == f"{names.LABEL_MODEL_DEPLOYMENT}=sentiment"
            yield {"items": self.records}
        else:
            yield {"items": [self.owner]}

    @property
    def asked(self) -> Json:
        """The last command on the object."""
        asked: Json = json.loads(self.owner["metadata"]["annotations"][names.ANNOTATION_COMMAND])
        return asked


def changed(owner: Json) -> None:
    """What any write does."""
    owner["metadata"]["resourceVersion"] = str(int(owner["metadata"]["resourceVersion"]) + 1)


def heeds(owner: Json) -> None:
    """The operator, by its own rules; each command comes a minute after the one before."""
    read = parse(owner)
    now = NOW + timedelta(minutes=int(owner["metadata"]["resourceVersion"]))
    obeyed = obey(read.command, read.status, asked=WANTED, past=(), now=now)
    if obeyed.command and obeyed.rollout:
        owner["status"] |= {"command": obeyed.command.to_wire(), "rollout": obeyed.rollout.to_wire()}
        owner["status"]["rejected"] = [each.to_wire() for each in obeyed.rejected]


def given(owner: Json, command: str, nonce: str, *, answered: bool = False) -> None:
    """Somebody else's command."""
    words = {"command": command, "rollout": "w4", "nonce": nonce}
    owner["metadata"].setdefault("annotations", {})[names.ANNOTATION_COMMAND] = json.dumps(words)
    if answered:
        owner["status"]["command"] = {"nonce": nonce, "command": command, "accepted": True}
    changed(owner)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster(owner=under_way())
    made.operator = heeds
    monkeypatch.setattr(reading, "connect_as_user", made.connect)
    monkeypatch.setattr(asking, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(status, "LOOK_SECONDS", 0.01)
    return made


def invoke(*args: str) -> Result:
    return CliRunner().invoke(app, list(args))


# The commands


@pytest.mark.parametrize(
    ("args", "owner", "asked", "words"),
    [
        (["promote"], under_way(), {"command": "promote", "full": False}, "It goes on to the next step."),
        (["promote", "--full"], under_way(), {"command": "promote", "full": True}, "All traffic goes to the new"),
        (["abort"], under_way(), {"command": "abort"}, "The traffic goes back to the stable revision."),
        (["pause"], under_way(), {"command": "pause"}, "It goes no further until it is resumed."),
        (["resume"], under_way(paused=True), {"command": "resume"}, "It goes on."),
        (["retry"], over("Halted"), {"command": "retry"}, f"Revision {WANTED} is tried again."),
    ],
)
def test_a_command_names_the_rollout_and_its_answer_is_printed(
    cluster: Cluster, args: list[str], owner: Json, asked: Json, words: str
) -> None:
    cluster.owner = deepcopy(owner)
    done = invoke(args[0], "sentiment", *args[1:], "--context", "blue")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{args[0]} sentiment: {words}")
    assert cluster.asked.items() >= ({"rollout": "w4"} | asked).items()
    assert cluster.contexts == ["blue"]


def test_each_command_has_a_nonce_of_its_own(cluster: Cluster) -> None:
    nonces = set()
    for _ in range(3):
        assert invoke("pause", "sentiment").exit_code == 0
        nonces.add(cluster.asked["nonce"])
    assert len(nonces) == 3


def test_what_the_operator_refuses_exits_with_1(cluster: Cluster) -> None:
    def refuses(owner: Json) -> None:
        nonce = cluster.asked["nonce"]
        owner["status"]["command"] = {"nonce": nonce, "command": "pause", "accepted": False, "message": "Not now."}

    cluster.operator = refuses
    done = invoke("pause", "sentiment")
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", "pause sentiment: not done. Not now.\n")


@pytest.mark.parametrize(
    ("verb", "owner", "words"),
    [
        ("promote", body(spec=SPEC, stable=STABLE), "team-a/sentiment has no rollout"),
        ("promote", over(), "The rollout is over (Done)."),
        ("promote", under_way("Verifying", step=0, weight=0), "has no traffic yet (Verifying)"),
        ("abort", under_way("RollingBack", cause="DeadlineExceeded"), "It is rolled back already (DeadlineExceeded)."),
        ("retry", under_way(), f"Revision {WANTED} was not rolled back"),
    ],
)
def test_what_is_known_before_is_said_and_not_asked_for(cluster: Cluster, verb: str, owner: Json, words: str) -> None:
    cluster.owner = deepcopy(owner)
    done = invoke(verb, "sentiment")
    assert (done.exit_code, done.stdout, cluster.patches) == (1, "", [])
    assert words in done.stderr


def test_an_object_that_is_being_deleted_is_asked_for_nothing(cluster: Cluster) -> None:
    cluster.owner["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    done = invoke("promote", "sentiment")
    assert (done.exit_code, cluster.patches) == (1, [])
    assert "is being deleted" in done.stderr


@pytest.mark.parametrize(
    "args", [["promote", "digit"], ["rollout", "status", "digit"], ["rollout", "history", "digit"]]
)
@pytest.mark.usefixtures("cluster")
def test_a_wrong_name_is_answered_with_the_names_that_are_there(args: list[str]) -> None:
    done = invoke(*args)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "There is no ModelDeployment digit in namespace team-a; there are: sentiment." in done.stderr


def test_who_may_not_change_the_object_hears_which_role_lets_them(cluster: Cluster) -> None:
    def forbid(_: Json) -> None:
        raise ApiError(403, "Forbidden", 'User "jane" cannot patch resource', what="")

    cluster.before_patch = [forbid]
    done = invoke("abort", "sentiment")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "You (jane) may not patch modeldeployments.conch.dev in namespace team-a." in done.stderr
    assert "with the ClusterRole edit." in done.stderr


def test_without_an_answer_it_asks_whether_the_operator_runs(cluster: Cluster) -> None:
    cluster.operator = lambda _: None
    done = invoke("pause", "sentiment", "--timeout", "0.1")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "The operator has not answered within 0.1 s. Is it running?" in done.stderr
    assert cluster.asked["command"] == "pause", "it stands"


@pytest.mark.parametrize(("verb", "waits"), [("promote", True), ("abort", False), ("pause", False)])
def test_a_spec_that_cannot_be_read_is_told_as_the_cause_of_no_answer(cluster: Cluster, verb: str, waits: bool) -> None:
    cluster.owner["spec"] = {"model": "unreadable"}
    cluster.operator = lambda _: None
    done = invoke(verb, "sentiment", "--timeout", "0.1")
    assert cluster.asked["command"] == verb, "a newer operator may read it"
    assert ("it heeds this command once it can read the spec. spec.model: " in done.stderr) is waits


def test_an_api_server_that_is_away_for_a_moment_is_asked_again(cluster: Cluster) -> None:
    away, busy = ApiUnavailableError("no route"), ApiError(429, "TooManyRequests", "slow down", what="")
    cluster.reads = [None, away, busy]
    assert invoke("pause", "sentiment").exit_code == 0
    assert cluster.reads == []


def test_an_api_server_that_stays_away_leaves_the_answer_open(cluster: Cluster) -> None:
    cluster.reads = [None, *[ApiUnavailableError("no route")] * 1000]
    done = invoke("pause", "sentiment", "--timeout", "0.1")
    assert done.exit_code == 1
    assert "could not be asked for the operator's answer within 0.1 s. The command stands." in done.stderr


def test_an_object_that_goes_away_meanwhile_ends_it(cluster: Cluster) -> None:
    cluster.reads = [None, ApiError(404, "NotFound", "gone", what="")]
    done = invoke("pause", "sentiment")
    assert (done.exit_code, done.stderr) == (2, "ModelDeployment team-a/sentiment has been deleted meanwhile.\n")


def test_a_pause_in_the_spec_is_told_to_who_resumes(cluster: Cluster) -> None:
    cluster.owner = under_way(spec={"rollout": {"paused": True}}, paused=True)
    assert "But spec.rollout.paused is true" in invoke("resume", "sentiment").stdout
    assert "spec.rollout.paused" not in invoke("pause", "sentiment").stdout


# Several people


def test_a_status_that_is_written_meanwhile_does_not_matter(cluster: Cluster) -> None:
    cluster.before_patch = [changed, changed]
    assert invoke("promote", "sentiment").exit_code == 0
    assert len(cluster.patches) == 1


def test_an_object_that_always_changes_is_given_up(cluster: Cluster) -> None:
    cluster.before_patch = [changed] * 100_000
    done = invoke("promote", "sentiment", "--timeout", "0.1")
    assert (done.exit_code, cluster.patches) == (1, [])
    assert "is changed all the time" in done.stderr


@pytest.mark.parametrize("answered", [False, True])
def test_of_two_promotions_at_the_same_time_one_is_not_given(cluster: Cluster, answered: bool) -> None:
    cluster.before_patch = [lambda owner: given(owner, "promote", "theirs", answered=answered)]
    done = invoke("promote", "sentiment")
    assert (done.exit_code, cluster.patches, cluster.asked["nonce"]) == (1, [], "theirs")
    assert "Another command (promote) was given at the same time, so this one was not" in done.stderr


def test_a_command_that_is_not_answered_yet_is_not_overwritten(cluster: Cluster) -> None:
    given(cluster.owner, "pause", "theirs")
    done = invoke("promote", "sentiment")
    assert (done.exit_code, cluster.patches) == (1, [])
    assert "Another command (pause) was given before, and the operator has not answered it yet" in done.stderr
    given(cluster.owner, "pause", "theirs", answered=True)
    assert invoke("promote", "sentiment").exit_code == 0


def test_an_unreadable_command_is_another_one_too(cluster: Cluster) -> None:
    cluster.owner["metadata"]["annotations"] = {names.ANNOTATION_COMMAND: "what?"}
    assert "Another, unreadable command was given before" in invoke("promote", "sentiment").stderr


def test_an_abort_takes_the_place_of_what_is_not_answered_yet(cluster: Cluster) -> None:
    cluster.before_patch = [lambda owner: given(owner, "promote", "theirs")]
    done = invoke("abort", "sentiment")
    assert (done.exit_code, cluster.asked["command"]) == (0, "abort")
    assert "It takes the place of another command (promote), which the operator has not answered yet." in done.stderr


def test_who_is_overtaken_before_the_answer_hears_by_what(cluster: Cluster) -> None:
    cluster.operator = lambda owner: given(owner, "abort", "theirs")
    done = invoke("promote", "sentiment")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "Another command (abort) was given at the same time and has taken this one's place" in done.stderr


def test_a_command_that_is_removed_before_the_answer_is_told(cluster: Cluster) -> None:
    cluster.operator = lambda owner: owner["metadata"].pop("annotations", None)
    done = invoke("promote", "sentiment")
    assert done.exit_code == 1
    assert "Somebody has removed the command" in done.stderr


def test_a_rollout_that_begins_meanwhile_is_not_promoted(cluster: Cluster) -> None:
    def begins(owner: Json) -> None:
        owner["status"]["rollout"]["id"] = "w5"
        changed(owner)

    cluster.before_patch = [begins]
    done = invoke("promote", "sentiment")
    assert (done.exit_code, cluster.patches) == (1, [])
    assert "Meanwhile another rollout has begun" in done.stderr


# conch rollout status

CHECKS = [
    {"name": "successRate", "verdict": "Pass", "value": 0.05, "limit": 0.5, "samples": 1200, "message": "0.05 % fail"},
    {"name": "latency p95 absolute", "verdict": "Inconclusive", "samples": 40, "message": "40 of 100\nrequests"},
]


def shown(owner: Json, **how: Any) -> list[str]:
    encoding = how.get("encoding", "utf-8")
    return as_text(screen(look(parse(owner)), now=NOW, encoding=encoding), **how).splitlines()


def test_the_screen_tells_what_copies_of_requests_have_shown() -> None:
    shadow = {
        "share": {"percent": 20},
        "compared": 90,
        "disagreed": 3,
        "failed": 1,
        "skipped": 4,
        "dropped": 5,
        "stableP50Ms": 5.5,
        "stableP90Ms": 9,
        "candidateP50Ms": 6,
        "candidateP90Ms": 12,
        "example": "scores: 1 of 10 values differ, by up to 0.5",
    }
    lines = shown(under_way("Shadowing", weight=0, shadow=shadow))
    at = lines.index("Copied requests")
    facts = [" ".join(line.split()) for line in lines[at + 1 : at + 5]]
    assert facts == [
        "Answers: 90 compared, 3 differ, 1 failed (20 % are copied; 4 not to be compared, "
        "5 beyond what gateways compare at a time)",
        "Latency, stable: p50 5.5 ms, p90 9 ms",
        "Latency, candidate: p50 6 ms, p90 12 ms",
        "Such as: scores: 1 of 10 values differ, by up to 0.5",
    ]


def test_the_screen_tells_everything_one_fact_a_line() -> None:
    owner = under_way(observedSince="2026-01-01T00:09:20Z", checks=CHECKS, paused=True)
    owner["status"] |= {
        "conditions": [condition("Ready", "False", "AwaitingPromotion", "It waits.")],
        "rejected": [REJECTED | {"revision": "r2"}],
        "command": {"nonce": "n", "command": "pause", "accepted": True, "message": "It goes no further."},
    }
    lines = shown(owner)
    assert lines[0] == "ModelDeployment team-a/sentiment: Shifting, 50 % of the requests for the new revision"
    facts = dict(re.split(r": +", line, maxsplit=1) for line in lines[1 : lines.index("")])
    assert facts == {
        "From": "r3 (version 3)",
        "To": f"{WANTED} (version 4)",
        "Strategy": "Surge (as spec.rollout.strategy says)",
        "Started": "10m ago",
        "Shares": "every gateway sends them so, for 40s",
        "Waits until": "checks pass (latency p95 absolute)",
        "Not ready": "AwaitingPromotion: It waits.",
        "Last command": "pause (accepted): It goes no further.",
    }
    waits = [line for line in lines if line.startswith("Waits until")]
    assert [re.split(r": +", wait, maxsplit=1)[1] for wait in waits] == [
        "somebody resumes it: conch resume sentiment",
        "somebody promotes it: conch promote sentiment",
        "checks pass (latency p95 absolute)",
    ]
    steps = lines.index("Steps: ✓ done, - skipped, ▶ here, ✗ ended here, · to come")
    assert lines[steps + 1 : steps + 4] == ["✓  10 % 60 s", "▶  50 % until promoted", "· 100 %"]
    tables = {line: [row.split() for row in lines[at + 1 : at + 4]] for at, line in enumerate(lines)}
    assert tables["Pods"][1:] == [["stable", "3", "r3", "w3", "2/2"], ["candidate", "4", WANTED, "w4", "1/1"]]
    assert tables["Checks"][1:] == [
        ["successRate", "Pass", "0.05", "0.5", "1200", "0.05", "%", "fail"],
        ["latency", "p95", "absolute", "Inconclusive", "-", "-", "40", "40", "of", "100", "requests"],
    ]
    assert tables["Rejected revisions"][1] == ["r2", "AnalysisFailed", "5m", "ago", "too", "slow"]
    assert "\x1b" not in "".join(lines)
    assert [line for line in lines if line != line.rstrip()] == []


@pytest.mark.parametrize(
    ("phase", "step", "places"),
    [
        ("Provisioning", 0, [Place.TO_COME, Place.TO_COME, Place.TO_COME]),
        ("Verifying", 2, [Place.SKIPPED, Place.SKIPPED, Place.TO_COME]),
        ("Shifting", 0, [Place.HERE, Place.TO_COME, Place.TO_COME]),
        ("Shifting", 2, [Place.DONE, Place.DONE, Place.HERE]),
        ("Baking", 2, [Place.DONE, Place.DONE, Place.HERE]),
        ("Draining", 2, [Place.DONE, Place.DONE, Place.DONE]),
        ("Done", 2, [Place.DONE, Place.DONE, Place.DONE]),
        ("RollingBack", 1, [Place.DONE, Place.ENDED, Place.TO_COME]),
        ("Halted", 1, [Place.DONE, Place.ENDED, Place.TO_COME]),
    ],
)
def test_each_step_is_somewhere(phase: str, step: int, places: list[Place]) -> None:
    steps = look(parse(under_way(phase, step=step))).steps
    assert [row.place for row in steps] == places
    assert [row.weight for row in steps] == [10, 50, 100]


def test_every_phase_has_its_screen_and_its_line() -> None:
    for phase in RolloutPhase:
        owner = under_way(phase) if phase not in ("Done", "Halted", "Draining") else over(phase)
        assert shown(owner)[0].startswith(f"ModelDeployment team-a/sentiment: {phase}")
        assert as_line(look(parse(owner))).startswith(f"{phase}, ")


@pytest.mark.parametrize(
    ("owner", "waits"),
    [
        (under_way("Verifying", deadline="2026-01-01T00:15:00Z"), ["more of its pods serve, or it is rolled back (5m"]),
        (under_way(step=0, observedSince="2026-01-01T00:09:20Z"), ["the step's time is over (20s left)"]),
        (under_way(step=0, observedSince="2026-01-01T00:09:20Z", promoted=1), []),
        (
            under_way("Baking", step=2, observedSince="2026-01-01T00:09:50Z"),
            ["the old pods need not be kept warm any more (20s left)"],
        ),
        (under_way("RollingBack", paused=True), ["the stable revision's pods have taken the traffic back"]),
        (under_way(spec={"rollout": {"paused": True}}), ["spec.rollout.paused is false again"]),
        (under_way(status={"desiredReplicas": 0}), ["replicas are wanted again (now none are)"]),
        (over(), []),
    ],
)
def test_what_it_waits_for_is_told_with_the_time_that_is_left(owner: Json, waits: list[str]) -> None:
    told = [line.split(": ", 1)[1].strip() for line in shown(owner) if line.startswith("Waits until")]
    assert len(told) == len(waits)
    assert all(line.startswith(words) for line, words in zip(told, waits, strict=True))


def test_what_was_rolled_back_says_why_and_how_to_try_it_again() -> None:
    owner = over("Halted", cause="AnalysisFailed", message="p95 is 80 ms", finishedAt="2026-01-01T00:08:00Z")
    text = "\n".join(shown(owner))
    assert re.search(r"Rolled back: +AnalysisFailed: p95 is 80 ms", text)
    assert re.search(r"Started: +10m ago, finished 2m ago", text)
    assert re.search(rf"To: +{WANTED} \(version 4\)", text), "the spec still tells its version"
    assert re.search(rf"Given up: +revision {WANTED} is to serve, but .* conch retry sentiment", text)
    assert re.search(rf"{WANTED} +AnalysisFailed +5m ago +too slow", text)


def test_pods_that_drain_and_a_stable_revision_that_is_lost_are_told() -> None:
    share = {"revision": "r3", "workload": "w3", "weight": 0, "drainingSince": "2026-01-01T00:09:30Z"}
    assert "Draining: all pods of revision r3 get nothing new, for 30s" in re.sub(
        " +", " ", "\n".join(shown(over("Draining") | {"status": over("Draining")["status"] | {"traffic": [share]}}))
    )
    lost = under_way(stableLostSince="2026-01-01T00:09:50Z")
    assert "no pod of it is ready, for 10s" in "\n".join(shown(lost))


def test_a_revision_that_serves_by_command_is_told() -> None:
    lines = [re.sub(" +", " ", line) for line in shown(rolled_back_by_command())]
    assert "By command: revision r3 serves in the place of the spec's" in lines
    assert not [line for line in lines if line.startswith("Given up")]


@pytest.mark.parametrize("weight", [10, 80])
def test_the_pods_of_both_revisions_are_told_apart(weight: int) -> None:
    """The status counts those of both together, and those of the new one."""
    rows = {row.role: row for row in look(parse(under_way(weight=weight))).pods}
    assert (rows["stable"].ready, rows["candidate"].ready) == (2, 1)
    first = look(parse(body(spec=SPEC, candidate=CANDIDATE, desiredReplicas=2, pods={"ready": 1}))).pods
    assert [(row.role, row.ready, row.wanted) for row in first] == [("candidate", 1, 2)]


def test_an_object_without_a_rollout_says_so() -> None:
    serving: Json = {"spec": SPEC, "stable": STABLE, "desiredReplicas": 2, "readyReplicas": 1}
    assert shown(body(**serving))[0].endswith("no rollout yet, the first revision serves")
    assert shown(body(**serving | {"readyReplicas": 0}))[0].endswith("yet, the first revision has no ready pod")
    none: Json = serving | {"desiredReplicas": 0, "readyReplicas": 0}
    assert shown(body(**none))[0].endswith("yet, the first revision has no pods, for no replicas are wanted")
    scaled = SPEC | {"autoscaling": {"minReplicas": 0, "maxReplicas": 3, "objective": {"latencyMs": 200}}}
    assert shown(body(**none | {"spec": scaled}))[0].endswith("yet, the first revision has no pods, for nobody asks")
    assert shown(body(spec=SPEC, candidate=CANDIDATE))[0].endswith("its first revision starts")
    suspended = body(spec=SPEC | {"suspend": True}, candidate=CANDIDATE)
    assert shown(suspended)[0].endswith("nothing serves, for no replicas are wanted")


def test_what_the_operator_has_not_looked_at_is_told_as_old() -> None:
    owner = over()
    owner["metadata"]["generation"] = 2
    assert "Note:" in shown(owner)[1]
    assert as_line(look(parse(owner))) == "the operator has not looked at the spec yet"


def test_what_others_wrote_cannot_steer_the_terminal_or_forge_a_line() -> None:
    hostile = "a\x1b[2Jb\n✓ all is well [bold]c[/bold]\x07"
    text = "\n".join(
        shown(under_way("RollingBack", cause="Aborted", message=hostile, checks=[CHECKS[0] | {"message": hostile}]))
    )
    assert "\x1b" not in text
    assert "\x07" not in text
    assert text.count("a[2Jb ✓ all is well [bold]c[/bold]") == 2
    assert "\x1b" not in as_line(look(parse(under_way("RollingBack", cause="Aborted", message=hostile))))


def test_an_encoding_without_the_marks_gets_others() -> None:
    lines = shown(under_way(), encoding="ascii")
    assert "> 50 % until promoted" in [re.sub(" +", " ", line) for line in lines]
    assert "\n".join(lines).isascii()


def test_a_terminal_gets_colours_and_its_own_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    owner = under_way(checks=[CHECKS[0] | {"message": "many words " * 30}])
    lines = shown(owner, terminal_width=70)
    assert "\x1b[" in "\n".join(lines)
    assert max(len(re.sub("\x1b[^m]*m", "", line)) for line in lines) <= 70


def test_status_prints_the_screen_or_the_json_and_exits_with_0(cluster: Cluster) -> None:
    told = invoke("rollout", "status", "sentiment")
    assert told.exit_code == 0
    assert told.stdout.startswith("ModelDeployment team-a/sentiment: Shifting, 50 %")
    cluster.owner["status"]["rollout"]["ofANewerVersion"] = 1
    wire = invoke("rollout", "status", "sentiment", "-o", "json")
    assert (wire.exit_code, json.loads(wire.stdout)) == (0, cluster.owner["status"]["rollout"])
    cluster.owner = body(spec=SPEC, stable=STABLE)
    assert json.loads(invoke("rollout", "status", "sentiment", "-o", "json").stdout) is None


# --watch


def goes(cluster: Cluster, *bodies: Json) -> None:
    """Each read shows the next of these; the last one stays."""
    left = list(bodies)

    async def get(*_: Any) -> Json:
        if cluster.reads and (error := cluster.reads.pop(0)):
            raise error
        return deepcopy(left.pop(0) if len(left) > 1 else left[0])

    cluster.get = get  # type: ignore[assignment, method-assign]  # a stand-in


def test_without_a_terminal_a_watch_prints_a_line_for_each_change_until_it_is_done(cluster: Cluster) -> None:
    starts, shifts = under_way("Provisioning", step=0, weight=0), under_way(step=0, weight=10)
    drains = over("Draining", step=2, weight=100)
    goes(cluster, starts, starts, shifts, shifts, shifts, drains, over(step=2, weight=100))
    done = invoke("rollout", "status", "sentiment", "--watch")
    assert (done.exit_code, done.stderr) == (0, "")
    stamps, words = zip(*(line.split(" ", 1) for line in done.stdout.splitlines()), strict=True)
    assert all(datetime.fromisoformat(stamp).tzinfo for stamp in stamps)
    assert list(words) == [
        "Provisioning, step 1 of 2, weight 0 %, stable 2/2, candidate 1/1",
        "Shifting, step 1 of 2, weight 10 %, stable 2/2, candidate 1/1",
        "Draining, weight 100 %, stable 2/2",
        "Done, weight 100 %, stable 2/2",
    ]


def test_a_watch_exits_with_1_when_it_is_rolled_back(cluster: Cluster) -> None:
    goes(cluster, under_way(), under_way("RollingBack", cause="Aborted", message="by command"), over("Halted"))
    assert invoke("rollout", "status", "sentiment", "--watch").exit_code == 1


def test_a_watch_of_json_is_a_line_for_each_change(cluster: Cluster) -> None:
    goes(cluster, under_way(), under_way(), over())
    done = invoke("rollout", "status", "sentiment", "-w", "-o", "json")
    assert done.exit_code == 0
    assert [json.loads(line)["phase"] for line in done.stdout.splitlines()] == ["Shifting", "Done"]


def rolled_back_by_command(*rejected: Json) -> Json:
    """Revision r3 serves again, whatever the spec asks for."""
    done = over()
    return done | {
        "status": done["status"] | {"stable": STABLE, "rolledBackTo": "r3", "rejected": [REJECTED, *rejected]}
    }


def stale(owner: Json) -> Json:
    return owner | {"metadata": owner["metadata"] | {"generation": 2}}


@pytest.mark.parametrize(
    ("owner", "code"),
    [
        (over(), 0),
        (over("Halted"), 1),
        (over("Halted", cause="Reverted"), 1),
        (rolled_back_by_command(), 0),
        (rolled_back_by_command(REJECTED | {"revision": "r3"}), 1),
        (over() | {"status": over()["status"] | {"stable": STABLE, "rejected": [REJECTED]}}, 1),
        (body(spec=SPEC, stable=STABLE), 0),
        (body(spec=SPEC, candidate=CANDIDATE), None),
        (body(spec=SPEC | {"suspend": True}, candidate=CANDIDATE), 0),
        (body(spec=SPEC, seen=0), None),
        (stale(over()), None),
        (stale(over("Halted")), None),
        (over("Draining"), None),
        (under_way("Halted", cause="Superseded", status={"candidate": None}), None),
        *((under_way(phase), None) for phase in ("Provisioning", "Verifying", "Shifting", "Baking", "RollingBack")),
    ],
)
def test_a_watch_ends_once_it_is_decided(owner: Json, code: int | None) -> None:
    assert look(parse(owner)).exit_code == code


def test_a_watch_outlasts_an_api_server_that_is_away(cluster: Cluster) -> None:
    goes(cluster, under_way(), over())
    cluster.reads = [None, ApiUnavailableError("no route"), ApiError(500, "InternalError", "etcd is away", what="")]
    done = invoke("rollout", "status", "sentiment", "--watch")
    assert done.exit_code == 0
    assert done.stderr.count("The API server does not answer") == 2


def test_a_watch_ends_when_its_user_may_read_no_more(cluster: Cluster) -> None:
    cluster.reads = [None, ApiError(401, "Unauthorized", "Unauthorized", what="")]
    done = invoke("rollout", "status", "sentiment", "--watch")
    assert done.exit_code == 2
    assert "log in again" in done.stderr


async def test_on_a_terminal_a_watch_draws_the_screen_at_each_look(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes(cluster, under_way(), under_way(), over())
    cluster.reads = [None, ApiUnavailableError("no route")]
    drawn = StringIO()
    terminal = Console(file=drawn, force_terminal=True, width=100, height=60, legacy_windows=False)
    monkeypatch.setattr(status, "Console", lambda **_: terminal)
    async with asyncio.timeout(10):
        assert await status.status("sentiment", namespace=None, context=None, watch=True, as_json=False) == 0
    text = drawn.getvalue()
    assert text.count("team-a/sentiment: Shifting") >= 2
    assert "The API server does not answer" in text
    assert text.rindex("team-a/sentiment: Done") > text.rindex("team-a/sentiment: Shifting")


# conch rollout history


def record(revision: str, version: int, workload: str, created: str, *, owner: str = "uid") -> Json:
    held = WorkloadRecord(
        workload=workload,
        number=int(workload[1:]),
        revision=revision,
        version=version,
        spec_json="{}",
        pod_template_json="{}",
        assignment_json="{}",
    )
    return {
        "metadata": {
            "name": f"sentiment-{workload}",
            "creationTimestamp": created,
            "ownerReferences": [owner_reference(parse(under_way())) | {"uid": owner}],
        },
        "data": record_data(held),
    }


RECORDS = [
    record("r1", 1, "w1", "2026-01-01T00:01:00Z"),
    record("r3", 3, "w3", "2026-01-01T00:03:00Z"),
    record(WANTED, 4, "w4", "2026-01-01T00:04:00Z"),
    record("r2", 2, "w2", "2026-01-01T00:02:00Z"),
    record("r9", 9, "w9", "2025-01-01T00:00:00Z", owner="an earlier object of this name"),
    {"metadata": record("r8", 8, "w8", "2026-01-01T00:09:00Z")["metadata"], "data": {"of": "another"}},
]


def test_history_has_each_revision_once_and_the_newest_first() -> None:
    owner = under_way(status={"rejected": [REJECTED | {"revision": "r2"}, REJECTED | {"revision": "r0"}]})
    rows = history(parse(owner), RECORDS)
    assert [(row.revision, row.version, row.workload, row.standing) for row in rows] == [
        ("r0", None, None, Standing.REJECTED),
        (WANTED, 4, "w4", Standing.CANDIDATE),
        ("r3", 3, "w3", Standing.STABLE),
        ("r2", 2, "w2", Standing.REJECTED),
        ("r1", 1, "w1", Standing.EARLIER),
    ]
    rejected = rows[3]
    assert (rejected.cause, rejected.message, rejected.rejected_at) == ("AnalysisFailed", "too slow", REJECTED["at"])


def test_a_revision_that_is_tried_again_has_a_row_for_each_workload() -> None:
    again = under_way(status={"candidate": CANDIDATE | {"workload": "w5"}})
    rows = history(parse(again), RECORDS)
    assert [(row.workload, row.standing) for row in rows if row.revision == WANTED] == [
        ("w5", Standing.CANDIDATE),
        ("w4", Standing.EARLIER),
    ]


def test_history_is_a_table_or_json(cluster: Cluster) -> None:
    cluster.owner, cluster.records = over("Halted"), RECORDS
    told = invoke("rollout", "history", "sentiment")
    assert (told.exit_code, told.stderr) == (0, "")
    header, *rows = (line.split() for line in told.stdout.splitlines())
    assert header == ["REVISION", "VERSION", "WORKLOAD", "CREATED", "STANDING"]
    assert [row[0] for row in rows] == [WANTED, "r3", "r2", "r1"]
    assert re.search(r"w4 .*rejected \d+d ago, AnalysisFailed: too slow", told.stdout)
    wire = json.loads(invoke("rollout", "history", "sentiment", "-o", "json").stdout)
    assert [row["workload"] for row in wire] == ["w4", "w3", "w2", "w1"]
    assert wire[0] == {
        "revision": WANTED,
        "version": 4,
        "workload": "w4",
        "number": 4,
        "standing": "rejected",
        "cause": "AnalysisFailed",
        "message": "too slow",
        "created": "2026-01-01T00:04:00Z",
        "rejectedAt": "2026-01-01T00:05:00Z",
    }


def test_who_may_not_list_the_records_gets_what_the_status_knows(cluster: Cluster) -> None:
    cluster.list_error = ApiError(403, "Forbidden", 'User "jane" cannot list resource', what="")
    told = invoke("rollout", "history", "sentiment")
    assert told.exit_code == 0
    assert "You (jane) may not list controllerrevisions.apps in namespace team-a." in told.stderr
    assert [line.split()[0] for line in told.stdout.splitlines()[1:]] == ["r3", WANTED]


def test_an_object_without_a_revision_says_so(cluster: Cluster) -> None:
    cluster.owner = body(spec=SPEC)
    assert invoke("rollout", "history", "sentiment").stdout == "ModelDeployment team-a/sentiment has no revision yet.\n"


# Help


@pytest.mark.parametrize(
    "command",
    ["promote", "abort", "retry", "pause", "resume", "rollout status", "rollout history"],
)
def test_help_has_examples_also_for_kubectl_and_the_exit_codes(command: str) -> None:
    shown = invoke(*command.split(), "--help").stdout
    assert "Examples:" in shown
    assert f"  conch {command} sentiment\n" in shown
    assert f"kubectl conch {command} sentiment" in shown
    assert "Exits with 0" in re.sub(r"\s+", " ", shown)
