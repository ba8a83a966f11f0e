"""When trouble of a pod counts as lasting: what was tried once, or a moment ago, proves nothing."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from conch.api.agent_report import AgentPhase, AgentReport, ChangeReport
from conch.api.reasons import Reason
from conch.core.observed_pod import ObservedContainer, ObservedPod
from conch.core.pod_trouble import failed_change, refusal_of, trouble, trouble_lasts

NOW: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
WELL: Final = ObservedPod(name="well", uid="well", workload="w2", ready=True, created=NOW.isoformat())


def a_pod(*, age_seconds: float | None = 0, **fields: Any) -> ObservedPod:
    created = "" if age_seconds is None else (NOW - timedelta(seconds=age_seconds)).isoformat()
    return ObservedPod(name="p0", uid="p0", workload="w2", created=created, **fields)


def failing(attempts: int, **fields: Any) -> ObservedPod:
    report = AgentReport(phase=AgentPhase.FAILED, revision="new", message="no such backend", attempts=attempts)
    return a_pod(report=report, **fields)


def waiting(reason: str, age_seconds: float | None, **fields: Any) -> ObservedPod:
    container = ObservedContainer(name="triton", waiting_reason=reason, **fields)
    return a_pod(age_seconds=age_seconds, containers=(container,))


@pytest.mark.parametrize(
    ("pod", "lasts"),
    [
        (failing(1, age_seconds=20), False),
        (failing(3, age_seconds=3600), False),
        (failing(4, age_seconds=19), False),
        (failing(4, age_seconds=20), True),
        (failing(99, age_seconds=3600), True),
        (failing(99, age_seconds=None), False),
        # An older agent does not tell how often.
        (failing(0, age_seconds=19), False),
        (failing(0, age_seconds=20), True),
        (waiting("ErrImagePull", 59), False),
        (waiting("ErrImagePull", 60), True),
        (waiting("ImagePullBackOff", 3600), True),
        (waiting("ImagePullBackOff", None), False),
        (waiting("CreateContainerConfigError", 59), False),
        (waiting("CreateContainerConfigError", 60), True),
        (waiting("CreateContainerError", 3600), True),
        (waiting("RunContainerError", 59), False),
        (waiting("RunContainerError", 60), True),
        (waiting("RunContainerError", None), False),
        (waiting("RunContainerError", 0, restarts=1), False),
        (waiting("RunContainerError", 0, restarts=2), True),
        # Who crashes over and over has been tried over and over.
        (waiting("CrashLoopBackOff", 0), True),
        (waiting("", 0, restarts=2, last_exit_at=NOW), True),
    ],
)
def test_trouble_is_told_at_once_and_lasts_once_it_did_not_pass(pod: ObservedPod, lasts: bool) -> None:
    for pods in ((pod,), (WELL, pod)):
        assert trouble(pods, NOW) is not None
        assert trouble_lasts(pods, NOW) is lasts


def test_one_pod_whose_trouble_lasts_is_enough() -> None:
    assert trouble_lasts((failing(1), replace(failing(4, age_seconds=20), name="p1")), NOW)
    assert trouble_lasts((failing(1), waiting("ErrImagePull", 60)), NOW)
    assert not trouble_lasts((failing(1), waiting("ErrImagePull", 59)), NOW)


def test_what_a_runtime_could_not_start_hides_no_other_container_and_is_not_called_a_crash() -> None:
    first = waiting("RunContainerError", 0, waiting_message="no space left on device")
    told = trouble((first,), NOW)
    assert told
    assert "Container triton of pod p0 could not be started: no space left on device" in told.message
    agent = ObservedContainer(name="agent", waiting_reason="CrashLoopBackOff", restarts=1, last_exit="exit code 2")
    assert trouble_lasts((replace(first, containers=(*first.containers, agent)),), NOW)
    again = trouble((waiting("RunContainerError", 0, restarts=2, waiting_message="no space"),), NOW)
    assert again
    assert "keeps crashing (2 restarts): no space" in again.message


def test_an_old_pod_that_was_tried_often_and_is_well_is_in_no_trouble() -> None:
    loading = a_pod(age_seconds=3600, report=AgentReport(phase=AgentPhase.LOADING, attempts=9))
    unheard = a_pod(age_seconds=3600)
    for pods in ((), (WELL,), (loading,), (unheard,), (waiting("ContainerCreating", 3600),)):
        assert trouble(pods, NOW) is None
        assert not trouble_lasts(pods, NOW)


def test_what_does_not_fit_beside_another_model_is_for_pods_of_its_own() -> None:
    change = ChangeReport(id="w2", revision="r2", phase=AgentPhase.FAILED, attempts=9, message="12 GiB and more")
    assert failed_change([change], lasting=True)
    too_large = change.model_copy(update={"reason": Reason.SOURCE_TOO_LARGE})
    assert "no room for both" in refusal_of(too_large)
    assert failed_change([too_large]) is None
    assert refusal_of(change) == ""
