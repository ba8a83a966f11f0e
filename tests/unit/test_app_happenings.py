"""Events: one when a state begins, none while it lasts."""

import pytest

from conch.api.reasons import Reason
from conch.api.status import CacheStatus, Condition, ConditionStatus, ConditionType, ModelDeploymentStatus
from conch.app.happenings import Happening, happenings

NOTHING = ModelDeploymentStatus()


def _status(ready: bool, reason: Reason, message: str = "m", *, stalled: bool = False) -> ModelDeploymentStatus:
    def condition(type_: ConditionType, holds: bool) -> Condition:
        status = ConditionStatus.TRUE if holds else ConditionStatus.FALSE
        return Condition(
            type=type_, status=status, reason=reason, message=message, last_transition_time="2026-01-01T00:00:00Z"
        )

    return ModelDeploymentStatus(
        conditions=(condition(ConditionType.READY, ready), condition(ConditionType.STALLED, stalled))
    )


def test_the_first_state_is_told() -> None:
    assert happenings(NOTHING, _status(False, Reason.STARTING)) == (
        Happening(reason=Reason.STARTING, message="m", warning=False),
    )


def test_a_state_that_lasts_is_not_told_again() -> None:
    before = _status(False, Reason.FETCHING, "10 %")
    assert happenings(before, _status(False, Reason.FETCHING, "20 %")) == ()


def test_another_reason_is_told() -> None:
    (happening,) = happenings(_status(False, Reason.FETCHING), _status(False, Reason.LOADING))
    assert happening.reason is Reason.LOADING


def test_the_same_reason_with_another_status_is_told() -> None:
    (happening,) = happenings(_status(False, Reason.SUSPENDED), _status(True, Reason.SUSPENDED))
    assert happening.reason is Reason.SUSPENDED


@pytest.mark.parametrize("stalled", [True, False])
def test_only_what_needs_somebody_is_a_warning(stalled: bool) -> None:
    (happening,) = happenings(NOTHING, _status(False, Reason.CRASH_LOOPING, stalled=stalled))
    assert happening.warning is stalled


def test_a_status_without_a_word_about_readiness_tells_nothing() -> None:
    assert happenings(_status(True, Reason.SERVING), NOTHING) == ()


def test_trouble_of_the_model_cache_is_told_once_for_each_message() -> None:
    def status(message: str, hit: int = 0) -> ModelDeploymentStatus:
        return ModelDeploymentStatus(cache=CacheStatus(hit=hit, message=message))

    (told,) = happenings(NOTHING, status("It is full."))
    assert told == Happening(reason=Reason.MODEL_CACHE_UNAVAILABLE, message="It is full.", warning=True)
    assert happenings(status("It is full."), status("It is full.", hit=2)) == ()
    assert [each.message for each in happenings(status("It is full."), status("It is gone."))] == ["It is gone."]
    assert happenings(status("It is full."), status("")) == ()
    assert happenings(status("It is full."), NOTHING) == ()
