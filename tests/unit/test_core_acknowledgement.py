"""When the gateways do what the status asks for: all of them, or all that answer."""

from dataclasses import replace
from typing import Any, Final

import pytest

from conch.api import names
from conch.api.gateway_report import ObjectTraffic
from conch.api.status import GatewayStatus, ModelDeploymentStatus
from conch.core.acknowledgement import acknowledged, acknowledged_by_heard, counted
from conch.core.observed import Observed, ObservedGateway
from conch.core.observed_child import ChildId, ChildKind, Controller, ObservedSlice

STATUS: Final = ModelDeploymentStatus(gateway=GatewayStatus(port=10_000, generation="g2"))
DOES: Final = ObservedGateway(
    name="does", address="10.1.0.1", ready=True, heard=True, traffic=ObjectTraffic(generation="g2")
)
LAGS: Final = replace(DOES, name="lags", address="10.1.0.2", traffic=ObjectTraffic(generation="g1"))
REJECTS: Final = replace(LAGS, name="rejects", traffic=ObjectTraffic(generation="g2", rejected=True))
KNOWS_NOTHING: Final = replace(LAGS, name="knows nothing", traffic=None)
SILENT: Final = replace(DOES, name="silent", address="10.1.0.3", heard=False, traffic=None)
SILENT_AND_BEHIND: Final = replace(SILENT, name="silent and behind", traffic=ObjectTraffic(generation="g1"))
SILENT_AFTER_IT_DID: Final = replace(SILENT, name="silent after it did", traffic=ObjectTraffic(generation="g2"))
UNLISTED: Final = replace(SILENT, name="unlisted", address="10.1.0.9")


def seen(*gateways: ObservedGateway) -> Observed:
    """With the object's slice, which lists all but one."""
    id_ = ChildId(kind=ChildKind.ENDPOINT_SLICE, name="sentiment-gateways")
    common: dict[str, Any] = {"uid": "s", "resource_version": "1", "owned_hash": ""}
    listed = ObservedSlice(
        id=id_,
        **common,
        controller=Controller(kind=names.KIND, name="sentiment", uid="uid"),
        service="sentiment",
        managed_by=names.SLICE_MANAGED_BY,
        ready=frozenset({"10.1.0.1", "10.1.0.2", "10.1.0.3"}),
    )
    return Observed(children={id_: listed}, gateways=gateways)


@pytest.mark.parametrize(
    ("gateways", "by_all", "by_heard"),
    [
        ((), True, True),
        ((DOES,), True, True),
        ((DOES, LAGS), False, False),
        ((DOES, REJECTS), False, False),
        ((DOES, KNOWS_NOTHING), False, False),
        ((DOES, SILENT), False, True),
        ((DOES, SILENT_AND_BEHIND), False, True),
        ((DOES, LAGS, SILENT), False, False),
        ((SILENT,), False, False),
        ((SILENT_AND_BEHIND, SILENT), False, False),
        # Its old word is true of what it did, but nobody tells whether it still does.
        ((SILENT_AFTER_IT_DID,), True, False),
        ((DOES, SILENT_AFTER_IT_DID), True, True),
        # No request goes through it.
        ((UNLISTED,), True, True),
    ],
    ids=lambda value: " and ".join(each.name for each in value) or "none" if isinstance(value, tuple) else None,
)
def test_who_acknowledges(gateways: tuple[ObservedGateway, ...], by_all: bool, by_heard: bool) -> None:
    observed = seen(*gateways)
    assert (acknowledged(STATUS, observed), acknowledged_by_heard(STATUS, observed)) == (by_all, by_heard)
    assert UNLISTED not in counted(observed)
