"""Which revisions can be gone back to, in which order, and what is read of a record that an older operator wrote."""

import json
from typing import Any, Final

import pytest

from conch.api import names
from conch.api.model_deployment import ModelDeployment, parse_spec
from conch.api.rollout import RejectedRevision, RollbackCause
from conch.api.spec import ModelDeploymentSpec
from conch.api.status import ModelDeploymentStatus, ServedRevision
from conch.core.desired.workload_record import new_record, read_record, record_data, workload_record
from conch.core.history import PAST_MOST, kept_records, remembered, spec_with, to_go_back_to, with_past
from conch.core.observed import Observed
from conch.core.observed_child import ChildId, ChildKind, Controller, ObservedRecord, WorkloadRecord
from conch.core.policy import InstallationPolicy
from conch.core.revision import revision_of

UID: Final = "11111111-2222-3333-4444-555555555555"
AT: Final = "2026-01-01T00:00:00Z"
STABLE: Final = ServedRevision(revision="stable", version=3, workload="w3")
CANDIDATE: Final = ServedRevision(revision="candidate", version=4, workload="w4")
REJECTED: Final = RejectedRevision(revision="bad", cause=RollbackCause.ABORTED, at=AT)
OLD_DATA: Final = {
    "workload": "w1",
    "revision": "r1",
    "version": 1,
    "podTemplate": '{"spec":{"containers":[]}}',
    "assignment": '{"model":"sentiment"}',
}
"""As an operator without rollouts wrote it."""


def a_spec(version: int = 1, **fields: Any) -> ModelDeploymentSpec:
    read = parse_spec({"model": {"version": version, "source": {"uri": "https://models.example/a.onnx"}}, **fields})
    assert isinstance(read, ModelDeploymentSpec)
    return read


def an_owner(spec: ModelDeploymentSpec | None = None) -> ModelDeployment:
    return ModelDeployment(
        namespace="default",
        name="sentiment",
        uid=UID,
        generation=1,
        resource_version="1",
        created=AT,
        deleting=False,
        spec=spec or a_spec(),
        status=ModelDeploymentStatus(),
    )


def a_record(revision: str, number: int = 1) -> WorkloadRecord:
    return WorkloadRecord(
        workload=f"w{number}",
        number=number,
        revision=revision,
        version=number,
        spec_json="{}",
        pod_template_json="{}",
        assignment_json="{}",
    )


def seen(*records: WorkloadRecord, **fields: Any) -> Observed:
    """These records as children of the object."""
    children = {}
    for record in records:
        id_ = ChildId(kind=ChildKind.CONTROLLER_REVISION, name=names.workload_object("sentiment", record.workload))
        common: dict[str, Any] = {
            "uid": record.workload,
            "resource_version": "1",
            "controller": Controller(kind=names.KIND, name="sentiment", uid=UID),
            "owned_hash": "",
        }
        children[id_] = ObservedRecord(id=id_, record=record, **{**common, **fields})
    return Observed(children=children)


# What was stable.


def test_the_newest_that_was_stable_comes_first_and_a_revision_is_there_once() -> None:
    past: tuple[str, ...] = ()
    for revision in ("a", "b", "a", "c", "b"):
        past = with_past(past, revision)
    assert past == ("b", "c", "a")


def test_the_oldest_are_forgotten() -> None:
    past: tuple[str, ...] = ()
    for number in range(PAST_MOST + 5):
        past = with_past(past, f"r{number}")
    assert (len(past), past[0], past[-1]) == (PAST_MOST, f"r{PAST_MOST + 4}", "r5")
    assert ModelDeploymentStatus(past=past).past == past, "as many as the status may hold"


def test_what_can_be_gone_back_to_is_what_was_stable_in_that_order() -> None:
    records = tuple(a_record(revision, number) for number, revision in enumerate(("r1", "r2", "r3", "never"), 1))
    status = ModelDeploymentStatus(stable=STABLE, past=("r1", "r3", "r2"))
    # By when each was stable, not by when its workload began; and what never was is not there.
    assert to_go_back_to(records, status) == ("r1", "r3", "r2")
    assert to_go_back_to(records, ModelDeploymentStatus(stable=STABLE)) == ()


@pytest.mark.parametrize("revision", ["stable", "candidate", "bad", "unrecorded"])
def test_what_serves_is_given_up_or_has_no_record_is_nothing_to_go_back_to(revision: str) -> None:
    records = tuple(a_record(name, number) for number, name in enumerate(("r1", "stable", "candidate", "bad"), 1))
    status = ModelDeploymentStatus(stable=STABLE, candidate=CANDIDATE, rejected=(REJECTED,), past=(revision, "r1"))
    assert to_go_back_to(records, status) == ("r1",)


def test_as_many_records_are_kept_as_the_limit_says() -> None:
    records = (a_record("r3", 3), a_record("r2", 2), a_record("r1", 1))
    past = ("r1", "r3", "r2")
    kept = [kept_records(an_owner(), records, past, limit) for limit in (0, 1, 2, 9)]
    objects = {revision: names.workload_object("sentiment", f"w{revision[1]}") for revision in past}
    assert kept == [set(), {objects["r1"]}, {objects["r1"], objects["r3"]}, set(objects.values())]


def test_a_revision_that_had_several_workloads_is_remembered_by_the_newest() -> None:
    found = remembered(an_owner(), seen(a_record("r1", 1), a_record("r2", 2), a_record("r1", 3)))
    assert [(record.revision, record.workload) for record in found] == [("r1", "w3"), ("r2", "w2")]


@pytest.mark.parametrize(
    "fields", [{"controller": None}, {"deleting": True}, {"controller": Controller(kind="A", name="b", uid="other")}]
)
def test_a_strangers_record_and_one_that_goes_are_not_remembered(fields: dict[str, Any]) -> None:
    assert remembered(an_owner(), seen(a_record("r1"), **fields)) == ()


# What is stored.


def test_a_record_is_read_as_it_was_written() -> None:
    spec = a_spec(2, replicas=3, scheduling={"nodeSelector": {"pool": "gpu"}})
    policy = InstallationPolicy(triton_image="triton:1", agent_image="conch:1")
    record = new_record(an_owner(spec), spec, revision_of(spec), workload="w2", number=2, policy=policy)
    assert read_record(json.loads(json.dumps(record_data(record)))) == record
    assert workload_record(an_owner(spec), record).body["revision"] == 2
    back = spec_with(record.revision, a_spec(9, replicas=7), (record,))
    assert back is not None
    assert (revision_of(back), back.replicas) == (record.revision, 7)


def test_a_record_of_an_older_operator_is_read_and_stays_what_it_was() -> None:
    """The data of a ControllerRevision can never be changed: one byte more, and the API server refuses every write."""
    record = read_record(OLD_DATA)
    assert (record.number, record.spec_json) == (0, "{}")
    assert json.dumps(record_data(record)) == json.dumps(OLD_DATA)
    body = workload_record(an_owner(), record).body
    assert (json.dumps(body["data"]), body["revision"]) == (json.dumps(OLD_DATA), 1)


def test_a_revision_whose_spec_was_not_kept_cannot_be_had_again() -> None:
    assert spec_with("r1", a_spec(), (read_record(OLD_DATA),)) is None
    assert spec_with("unknown", a_spec(), (read_record(OLD_DATA),)) is None


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"podTemplate": "[]"}, TypeError),
        ({"spec": "1"}, TypeError),
        ({"assignment": "{"}, ValueError),
        ({"assignment": None}, TypeError),
    ],
)
def test_what_is_no_record_is_refused(fields: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        read_record({**OLD_DATA, **fields})
    with pytest.raises(KeyError):
        read_record({key: value for key, value in OLD_DATA.items() if key != "workload"})
