"""What gateways tell of copies, added up: each source once, whoever comes and goes."""

from typing import Any

from conch.api.gateway_report import ObjectTraffic, ShadowTraffic
from conch.api.rollout import RolloutPhase, RolloutStatus, Strategy
from conch.api.shadow import Shadow, Tolerance
from conch.api.status import ModelDeploymentStatus, ServedRevision
from conch.app.copy_book import CopyBook
from conch.core.analysis.copies import NOTHING_COPIED, Copies, shadow_status
from conch.core.observed import ObservedGateway

UID = "uid-1"
SHADOW = Shadow(percent=10)


def status(workload: str = "w2", shadow: Shadow | None = SHADOW) -> ModelDeploymentStatus:
    rollout = RolloutStatus(
        id="w2",
        revision="new",
        from_revision="old",
        strategy=Strategy.SURGE,
        phase=RolloutPhase.SHADOWING,
        started_at="2026-01-01T00:00:00Z",
        shadow=shadow_status(shadow.share, NOTHING_COPIED) if shadow else None,
    )
    return ModelDeploymentStatus(
        candidate=ServedRevision(revision="new", version=2, workload=workload), rollout=rollout
    )


def gateway(name: str, workload: str = "w2", shadow: Shadow = SHADOW, **told: Any) -> ObservedGateway:
    traffic = ShadowTraffic(**{"epoch": "1", "comparison": shadow.share.comparison, **told})
    shadows = ObjectTraffic(shadows={workload: traffic})
    return ObservedGateway(name=name, address="10.0.0.1", ready=True, heard=True, traffic=shadows)


def test_all_gateways_together() -> None:
    book = CopyBook()
    one = gateway("a", compared=3, disagreed=1, failed=2, skipped=4, dropped=5, stable_latency=(1, 2))
    other = gateway("b", compared=7, candidate_latency=(0, 0, 9), stable_latency=(1, 0, 4))
    assert book.read(UID, status(), [one, other]) == Copies(
        compared=10,
        disagreed=1,
        failed=2,
        skipped=4,
        dropped=5,
        stable_latency=(2, 2, 4),
        candidate_latency=(0, 0, 9),
    )
    assert book.read(UID, status(), [one, other]).compared == 10, "however often it is read"


def test_who_goes_stays_counted_and_another_life_is_counted_besides() -> None:
    book = CopyBook()
    book.read(UID, status(), [gateway("a", compared=3)])
    assert book.read(UID, status(), []).compared == 3
    assert book.read(UID, status(), [gateway("a", epoch="2", compared=1)]).compared == 4
    unknown = ObservedGateway(name="c", address="10.0.0.3", ready=True)
    assert book.read(UID, status(), [unknown]).compared == 4


def test_the_newest_example_is_told() -> None:
    book = CopyBook()
    first, second = gateway("a", example="x differs"), gateway("b", example="y differs")
    book.read(UID, status(), [first, second])
    assert book.read(UID, status(), [gateway("a", example="z differs"), second]).example == "z differs"


def test_what_was_compared_otherwise_or_of_another_workload_says_nothing() -> None:
    book = CopyBook()
    other = Shadow(percent=10, tolerance=Tolerance(absolute=1))
    told = [gateway("a", compared=3), gateway("b", shadow=other, compared=5), gateway("c", "w1", compared=9)]
    assert book.read(UID, status(), told).compared == 3
    assert book.read(UID, status(shadow=other), told).compared == 5
    assert book.read(UID, status("w1"), told).compared == 9
    assert book.read(UID, status(shadow=None), told) == NOTHING_COPIED
    book.forget(UID)
    assert book.read(UID, status(), []) == NOTHING_COPIED
