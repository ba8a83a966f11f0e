"""The name of what gateways are to do for an object: another one whenever that changes, and never but for that."""

from typing import Any, Final

import pytest

from conch.api.gateway import Gateway
from conch.api.shadow import ShadowShare
from conch.api.status import TrafficShare
from conch.core.traffic import generation_of

SHARE: Final = TrafficShare(revision="r1", workload="w1", weight=100)


def test_an_upgrade_keeps_the_name_of_what_stays_the_same() -> None:
    """Written down as it was before pods could change in place: with another one every object would wait for its
    gateways again."""
    assert generation_of((SHARE,), 10000, None) == "adad968ac7ddbc19"
    assert generation_of((SHARE, SHARE), 10001, Gateway()) == "d69b5fe5b20bb4a7"


@pytest.mark.parametrize(
    "changed",
    [
        {"weight": 50},
        {"workload": "w2"},
        {"host": "w0"},
        {"pods": ()},
        {"pods": ("a",)},
        {"draining": ("a",), "draining_since": "2026-01-01T00:00:00Z"},
        {"shadow": ShadowShare(percent=10)},
    ],
    ids=lambda changed: ",".join(changed),
)
def test_whatever_gateways_are_to_do_otherwise_has_another_name(changed: dict[str, Any]) -> None:
    assert generation_of((SHARE.model_copy(update=changed),), 10000, None) != generation_of((SHARE,), 10000, None)


def test_pods_that_are_only_held_back_change_nothing_that_is_waited_for() -> None:
    held_back = SHARE.model_copy(update={"draining": ("a",)})
    assert generation_of((held_back,), 10000, None) == generation_of((SHARE,), 10000, None)
