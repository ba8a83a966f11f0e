"""What a person is told of an object for which nothing runs because nobody asks."""

from typing import Any

import pytest

from conch.api.model_deployment import parse
from conch.rollouts.progress import look
from conch.why.chain import explain
from conch.why.gather import Seen
from conch.why.report import Outcome
from tests.unit.test_rollout_cli import under_way
from tests.unit.test_why_chain import body, condition
from tests.unit.test_why_scaling import OBJECTIVE, told

Json = dict[str, Any]

ZERO: Json = OBJECTIVE | {"minReplicas": 0}
ASLEEP = condition("Ready", "True", "ScaledToZero", "Nobody asks, so nothing runs.")
IDLE = told(reason="Idle", message="nobody has asked for 300 s")


def asleep(*, gateway: Json | None = None, status: Json = IDLE) -> Json:
    spec = {"autoscaling": ZERO, "gateway": gateway or {}}
    return body(ASLEEP, spec=spec, desiredReplicas=0, readyReplicas=0, autoscaling=status)


def test_it_is_ready_and_says_what_wakes_it_and_nothing_of_replicas_in_the_spec() -> None:
    report = explain(Seen(body=asleep()))
    assert report.ready
    assert {check.outcome for check in report.checks} == {Outcome.PASSED}
    assert report.notes == ("Nobody asks, so no server runs; the next request wakes it.",)
    assert "kubectl scale" not in report.next_step


@pytest.mark.parametrize(
    ("gateway", "status", "words"),
    [
        ({}, IDLE, "Nothing: the next request is held and wakes it."),
        ({}, told(reason="Idle", coldStartSeconds=None), "Nothing: the next request is held and wakes it."),
        ({"hold": {"seconds": 0}}, IDLE, "is refused itself: spec.gateway.hold.seconds is 0"),
        ({"hold": {"seconds": 20}}, IDLE, "a server took 32 s to start, and requests are held for 20 s. Raise"),
        ({"hold": {"seconds": 32}}, IDLE, "Nothing: the next request is held and wakes it."),
    ],
)
def test_the_next_step_is_what_the_next_request_will_meet(gateway: Json, status: Json, words: str) -> None:
    assert words in explain(Seen(body=asleep(gateway=gateway, status=status))).next_step


@pytest.mark.parametrize(
    "owner",
    [
        body(spec={"autoscaling": ZERO}, seen=0),
        body(condition("Ready", "True", "NoReplicas"), spec={"autoscaling": OBJECTIVE}, seen=0),
        body(condition("Ready", "True", "Suspended", "m"), spec={"autoscaling": ZERO, "suspend": True}),
        body(condition("Ready", "True", "NoReplicas"), spec={"replicas": 0}),
        body(condition("Ready", "True", "Serving"), spec={"autoscaling": ZERO}, desiredReplicas=1, readyReplicas=1),
    ],
    ids=["new", "zero by hand before", "suspended", "by hand", "awake"],
)
def test_nobody_else_is_said_to_sleep(owner: Json) -> None:
    report = explain(Seen(body=owner))
    assert not [words for words in (*report.notes, report.next_step) if "wakes" in words]


def test_a_rollout_that_finds_it_asleep_waits_for_the_autoscaler_and_not_for_a_person() -> None:
    status = {"desiredReplicas": 0}
    by_hand, scaled = under_way(status=status), under_way(spec={"autoscaling": ZERO}, status=status)
    assert [wait.words for wait in look(parse(by_hand)).waits] == ["replicas are wanted again (now none are)"]
    assert [wait.words for wait in look(parse(scaled)).waits] == [
        "replicas are wanted again (now none are, for nobody asked)"
    ]
