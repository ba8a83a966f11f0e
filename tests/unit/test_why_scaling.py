"""What `conch why` says of an autoscaled object: pure, on objects as the API server gives them."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from conch.api.autoscaling import AutoscalingStatus, ScalingReason
from conch.api.model_deployment import parse
from conch.why.chain import explain
from conch.why.gather import Seen
from conch.why.render import render
from conch.why.report import Report, ScalingRow
from conch.why.words import figure
from tests.unit.test_why_chain import body, condition

Json = dict[str, Any]

NOW = datetime(2026, 1, 1, 0, 12, tzinfo=UTC)
OBJECTIVE: Json = {"maxReplicas": 10, "objective": {"latencyMs": 200}}
CURVE = {"baseMilliseconds": 5.0, "perItemMilliseconds": 2.5, "maxBatch": 8, "instances": 1, "model": ""}
SURGE = "41.2 requests per second come now, more than 2 servers carry"
CALM = "13 requests per second: 1.5 x the load of the last 60 s, what that needs is kept for 5 min"
TOLD: Json = {
    "reason": "Surge",
    "message": SURGE,
    "demand": 41.2,
    "capacityPerReplica": 16.4,
    "latePercent": 0.31,
    "curve": CURVE,
    "coldStartSeconds": 32.0,
    "policy": "1.5 x the load of the last 60 s, what that needs is kept for 5 min",
    "observedAt": "2026-01-01T00:11:48Z",
    "decisions": [
        {"at": "2026-01-01T00:11:48Z", "before": 2, "after": 5, "reason": "Surge", "message": SURGE},
        {"at": "2026-01-01T00:01:00Z", "before": 3, "after": 2, "reason": "Load", "message": CALM},
    ],
}
SERVES = condition("Ready", "True", "Serving", "2 of 2 replicas serve version 1.")


def told(**changes: Any) -> Json:
    """`status.autoscaling`; None leaves a field out."""
    return {key: value for key, value in (TOLD | changes).items() if value is not None}


def scaled(autoscaling: Json | None = None, status: Json | None = TOLD, *, ready: Json = SERVES, **fields: Any) -> Json:
    """An object that is autoscaled."""
    spec = {"autoscaling": OBJECTIVE if autoscaling is None else autoscaling, **fields.pop("spec", {})}
    known = {} if status is None else {"autoscaling": status}
    return body(ready, spec=spec, **({"desiredReplicas": 5, "readyReplicas": 2} | known | fields))


def look(owner: Json) -> Report:
    return explain(Seen(body=owner))


def row(owner: Json) -> ScalingRow:
    found = look(owner).autoscaling
    assert found is not None
    return found


def lines(owner: Json, width: int | None = None) -> list[str]:
    """The autoscaler's part alone."""
    text = re.sub("\x1b[^m]*m", "", render(look(owner), now=NOW, terminal_width=width))
    return text.split("\nAutoscaling\n")[1].split("\n\nNext step\n")[0].splitlines()


def test_the_fixtures_are_what_the_api_allows() -> None:
    assert parse(scaled()).status.autoscaling == AutoscalingStatus.model_validate(TOLD)


def test_a_pipe_gets_one_fact_a_line_and_the_last_changes_as_a_table() -> None:
    assert lines(scaled()) == [
        f"Wanted: 5 servers (2 ready; 1 to 10 allowed). Surge: {SURGE}",
        "Objective: 95 % of the requests within 200 ms; 0.31 % took longer of late",
        "Load: 41.2 requests per second; a server carries 16.4 of them",
        "Learnt: a batch of n takes 5 + 2.5 n ms, n up to 8: 320 requests per second at most",
        "Cold start: 32 s from a pod's creation until it serves, as nine of ten did",
        "Policy: 1.5 x the load of the last 60 s, what that needs is kept for 5 min",
        "These figures are 12s old; they are renewed when they change much",
        "",
        "Last changes of the count",
        "WHEN     SERVERS  REASON  MESSAGE",
        f"12s ago  2 -> 5   Surge   {SURGE}",
        f"11m ago  3 -> 2   Load    {CALM}",
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 132])
def test_a_terminal_of_any_width_shows_every_word_of_the_table(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    shown = lines(scaled(), width)
    assert max(map(len, shown)) <= width
    table = shown[shown.index("Last changes of the count") + 1 :]
    message = table[0].index("MESSAGE")
    assert [line[:message].split() for line in table if line[0] != " "] == [
        ["WHEN", "SERVERS", "REASON"],
        ["12s", "ago", "2", "->", "5", "Surge"],
        ["11m", "ago", "3", "->", "2", "Load"],
    ]
    assert " ".join(" ".join(line[message:] for line in table).split()) == f"MESSAGE {SURGE} {CALM}"


def test_it_stands_between_the_checks_and_the_revisions() -> None:
    stable = {"revision": "r1", "version": 3, "workload": "w1"}
    text = render(look(scaled(stable=stable)), now=NOW)
    titles = [line for line in text.splitlines() if line in ("Autoscaling", "Revisions", "Next step")]
    assert titles == ["Autoscaling", "Revisions", "Next step"]
    assert text.index("The Service sends requests there.") < text.index("\nAutoscaling\n")


@pytest.mark.parametrize(
    ("autoscaling", "words"),
    [
        ({"objective": {"latencyMs": 50, "percentile": 99.9}}, "99.9 % of the requests within 50 ms"),
        ({"target": {"metric": "Concurrency", "value": 4}}, "4 requests at each server at the same time"),
        ({"target": {"metric": "QueueTimeMs", "value": 2.5}}, "requests wait 2.5 ms on average"),
        ({"target": {"metric": "RequestsPerSecond", "value": 1e6}}, "1,000,000 requests per second for each server"),
    ],
)
def test_what_is_to_be_reached_is_said_in_words(autoscaling: Json, words: str) -> None:
    assert row(scaled({"maxReplicas": 3, **autoscaling})).goal == words


@pytest.mark.parametrize(
    ("autoscaling", "curve", "words"),
    [
        (OBJECTIVE, CURVE, "41.2 requests per second"),
        (OBJECTIVE, None, "41.2 requests at the same time"),
        ({"maxReplicas": 3, "target": {"metric": "Concurrency", "value": 4}}, None, "41.2 requests at the same time"),
        ({"maxReplicas": 3, "target": {"metric": "RequestsPerSecond", "value": 4}}, None, "41.2 requests per second"),
    ],
    ids=["by its curve", "a stream", "concurrency", "rate"],
)
def test_the_load_is_told_in_what_it_is_counted_in(autoscaling: Json, curve: Json | None, words: str) -> None:
    assert f"Load: {words}; a server carries 16.4 of them" in lines(scaled(autoscaling, told(curve=curve)))


def test_an_ensemble_tells_the_member_that_limits_it_and_instances_are_told() -> None:
    curve = CURVE | {"model": "resize", "instances": 2}
    assert (
        "Learnt: a batch of n takes 5 + 2.5 n ms, n up to 8, in 2 instances (of resize, which limits the ensemble): "
        "640 requests per second at most"
    ) in lines(scaled(status=told(curve=curve)))


@pytest.mark.parametrize(
    ("instances", "words"),
    [
        ({}, "Instances: as the model says"),
        ({"trying": 2, "message": "m"}, "Instances: as the model says, 2 are being tried (m)"),
        ({"count": 2, "message": "2 do 90, 1 do 60: kept"}, "Instances: 2 in each server (2 do 90, 1 do 60: kept)"),
        ({"count": 2, "trying": 3}, "Instances: 2 in each server, 3 are being tried"),
    ],
)
def test_instances_that_are_found_by_trial_are_told(instances: Json, words: str) -> None:
    owner = scaled(status=told(instances=instances))
    assert words in lines(owner)
    assert row(scaled()).instances is None


def test_a_curve_of_nothing_tells_no_most() -> None:
    curve = CURVE | {"baseMilliseconds": 0, "perItemMilliseconds": 0}
    assert "Learnt: a batch of n takes 0 + 0 n ms, n up to 8" in lines(scaled(status=told(curve=curve)))


def test_what_is_not_known_is_said_and_nothing_is_made_up() -> None:
    bare = {"reason": "NoData", "message": "no gateway tells", "observedAt": TOLD["observedAt"]}
    assert lines(scaled(status=bare, desiredReplicas=1)) == [
        "Wanted: 1 server (2 ready; 1 to 10 allowed). NoData: no gateway tells",
        "Objective: 95 % of the requests within 200 ms",
        "Load: not known; what a server carries is not known yet",
        "These figures are 12s old; they are renewed when they change much",
    ]


def test_before_the_first_decision_that_is_said() -> None:
    assert lines(scaled(status=None, desiredReplicas=1, readyReplicas=0)) == [
        "Wanted: 1 server (0 ready; 1 to 10 allowed). the autoscaler has decided nothing yet",
        "Objective: 95 % of the requests within 200 ms",
    ]


@pytest.mark.parametrize("spec", [{"replicas": 3}, {"autoscaling": OBJECTIVE, "suspend": True}])
def test_a_count_that_nobody_scales_has_no_such_part(spec: Json) -> None:
    report = look(body(SERVES, spec=spec, autoscaling=TOLD))
    assert report.autoscaling is None
    assert "Autoscaling" not in render(report, now=NOW)


def test_reasons_and_specs_of_a_newer_version_are_shown_as_they_are() -> None:
    """`parse` leaves out what it does not know, and here that would be all there is to tell."""
    newer = told(
        reason="OfTomorrow",
        decisions=[{"at": "2026-01-01T00:11:00Z", "before": 1, "after": 2, "reason": "OfTomorrow"}],
    )
    owner = scaled(OBJECTIVE | {"ofTomorrow": 1}, newer)
    assert parse(owner).status.autoscaling is None
    shown = lines(owner)
    assert shown[0] == f"Wanted: 5 servers (2 ready). OfTomorrow: {SURGE}"
    assert shown[1] == "Objective: this conch cannot read spec.autoscaling; 0.31 % took longer of late"
    assert shown[-1].split() == ["60s", "ago", "1", "->", "2", "OfTomorrow"]
    assert look(owner).next_step == "Nothing: it serves."


def test_what_others_wrote_cannot_steer_the_terminal_or_forge_a_line() -> None:
    hostile = told(message="a\x1b[2J\n✓ all is well", reason="Surge")
    hostile["decisions"] = [{**TOLD["decisions"][0], "message": "b\x07\n[bold]c[/bold]", "reason": "Sur\x1bge"}]
    text = render(look(scaled(status=hostile)), now=NOW)
    assert not {"\x1b", "\x07"} & set(text)
    assert "a[2J ✓ all is well" in text
    assert "Surge   b [bold]c[/bold]" in text


def test_an_old_status_is_told_as_old() -> None:
    old = scaled()
    old["metadata"]["generation"] = 2
    assert "\nAutoscaling, as the operator saw it last\n" in render(look(old), now=NOW)


@pytest.mark.parametrize(
    ("autoscaling", "status", "spec", "words"),
    [
        (OBJECTIVE, told(), {}, "Nothing: it serves."),
        (OBJECTIVE, told(reason="Maximum"), {}, "more servers than spec.autoscaling.maxReplicas allows (10)"),
        (OBJECTIVE, told(reason="NoData"), {}, "kubectl get pods -A -l app.kubernetes.io/name=conch,"),
        (OBJECTIVE, told(reason="NoData"), {"gateway": {"mode": "Direct"}}, "Nothing: it serves."),
        (
            {"maxReplicas": 3, "objective": {"latencyMs": 7}},
            told(reason="Maximum"),
            {},
            "A request takes 7.5 ms with nobody else there, and the objective is 7 ms: no number of servers keeps it.",
        ),
        ({"maxReplicas": 3, "objective": {"latencyMs": 8}}, told(), {}, "Nothing: it serves."),
        ({"maxReplicas": 3, "target": {"metric": "QueueTimeMs", "value": 1}}, told(), {}, "Nothing: it serves."),
    ],
)
def test_what_its_user_had_better_change_is_the_next_step(
    autoscaling: Json, status: Json, spec: Json, words: str
) -> None:
    step = look(scaled(autoscaling, status, spec=spec)).next_step
    assert words in step
    assert step.startswith(("Nothing: ", "It serves. "))


def test_what_keeps_it_from_serving_goes_before_that() -> None:
    why = condition("Ready", "False", "WaitingForGPU", "No node has a GPU.")
    owner = scaled(status=told(reason="Maximum"), ready=why, display={"check": "pods_have_a_node"})
    assert "maxReplicas" not in look(owner).next_step


def test_the_json_has_every_field_in_every_case() -> None:
    """Who reads it with jq relies on this list; fields may be added."""
    known = look(scaled()).model_dump(mode="json")["autoscaling"]
    unknown = look(scaled(status=None)).model_dump(mode="json")["autoscaling"]
    assert list(known) == list(unknown)
    assert known == {
        "goal": "95 % of the requests within 200 ms",
        "minReplicas": 1,
        "maxReplicas": 10,
        "wanted": 5,
        "ready": 2,
        "reason": "Surge",
        "message": SURGE,
        "counted": "PerSecond",
        "demand": 41.2,
        "capacityPerReplica": 16.4,
        "latePercent": 0.31,
        "curve": CURVE,
        "coldStartSeconds": 32.0,
        "policy": TOLD["policy"],
        "instances": None,
        "observedAt": TOLD["observedAt"],
        "decisions": TOLD["decisions"],
    }
    assert {key for key, value in unknown.items() if value is None} == {
        "instances",
        "reason",
        "demand",
        "capacityPerReplica",
        "latePercent",
        "curve",
        "coldStartSeconds",
        "observedAt",
    }


@pytest.mark.parametrize("reason", ScalingReason)
def test_every_reason_can_be_told(reason: ScalingReason) -> None:
    assert lines(scaled(status=told(reason=reason)))[0].endswith(f"{reason}: {SURGE}")
    assert look(scaled(status=told(reason=reason))).next_step


@pytest.mark.parametrize(
    ("value", "words"), [(0, "0"), (0.254, "0.254"), (41.23, "41.2"), (99.96, "100"), (1234.5, "1,234"), (1e12, None)]
)
def test_a_figure_has_three_digits_and_no_powers_of_ten(value: float, words: str | None) -> None:
    assert figure(value) == words or (words is None and "e" not in figure(value))
