"""When another instance is tried on the same GPU, and when it is kept."""

from dataclasses import replace
from typing import Final

import pytest

from conch.core.scaling.instances import Instances, Trial, next_instances
from conch.core.scaling.service_curve import SeenBatches
from conch.core.scaling.signals import BatchTimes, SeenInstances

GIB: Final = 2**30
FREE: Final = SeenInstances(running=1, memory_used_bytes=4 * GIB, memory_total_bytes=24 * GIB)


def batches(*, seconds_of_eight: float, instances: int = 1, executions: int = 300, name: str = "m") -> SeenBatches:
    """A model that was seen to execute batches of one and of eight."""
    sizes = ((1, executions, executions * seconds_of_eight / 2), (8, executions, executions * seconds_of_eight))
    return SeenBatches().with_([BatchTimes(name=name, max_batch=8, instances=instances, sizes=sizes)])


BEFORE: Final = batches(seconds_of_eight=0.08)


def step(
    known: Instances,
    seen_batches: SeenBatches = BEFORE,
    seen: SeenInstances | None = FREE,
    *,
    now: float = 1000.0,
    steady_since: float = 0.0,
    load_share: float = 0.7,
    undisturbed: bool = True,
) -> tuple[Instances, SeenBatches]:
    return next_instances(
        now,
        known,
        seen_batches,
        seen,
        steady_since=steady_since,
        load_share=load_share,
        limit_seconds=0.2,
        undisturbed=undisturbed,
    )


def under_trial() -> Instances:
    known, learnt = step(Instances())
    assert known.trial is not None
    assert not learnt.models, "what one more does is learnt anew"
    return known


def test_one_more_is_tried_where_its_part_of_the_memory_is_free() -> None:
    known = under_trial()
    assert known.asked == 2
    assert known.count is None


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (replace(FREE, memory_total_bytes=8 * GIB), "may need 4.4 GiB of GPU memory, of which 4.0 GiB are free"),
        (replace(FREE, memory_used_bytes=None), "no GPU tells"),
    ],
)
def test_without_room_none_is_tried_and_the_reason_is_told(seen: SeenInstances, words: str) -> None:
    known, learnt = step(Instances(), seen=seen)
    assert known.asked is None
    assert words in known.message
    assert learnt is BEFORE
    assert step(known, seen=FREE, now=2000.0)[0] == known, "the memory of a GPU is not asked about all day"


@pytest.mark.parametrize(
    "changed",
    [
        {"undisturbed": False},
        {"steady_since": 990.0},
        {"load_share": 0.1},
        {"seen": None},
        {"seen": replace(FREE, running=8)},
        {"seen_batches": SeenBatches()},
        {"seen_batches": BEFORE.with_([BatchTimes(name="other", max_batch=1, instances=1, sizes=((1, 9, 0.1),))])},
        {"seen_batches": SeenBatches().with_([BatchTimes(name="s", max_batch=1, instances=1, decoupled=True)])},
    ],
    ids=["version changes", "count changed lately", "little load", "unknown", "many", "no curve", "ensemble", "stream"],
)
def test_nothing_is_tried_when_it_could_not_be_judged(changed: dict[str, object]) -> None:
    known, _ = step(Instances(), **changed)  # type: ignore[arg-type]  # one keyword of the helper's own
    assert known == Instances()


def test_what_does_more_is_kept() -> None:
    better = batches(seconds_of_eight=0.11, instances=2)
    known, learnt = step(under_trial(), better, replace(FREE, running=2), now=1061.0)
    assert (known.count, known.trial) == (2, None)
    assert learnt is better
    assert known.message == "2 instances do 145 requests per second and server, 1 do 100: kept"


@pytest.mark.parametrize(
    ("after", "seen", "now", "words"),
    [
        (batches(seconds_of_eight=0.155, instances=2), replace(FREE, running=2), 1061.0, "do 103"),
        (batches(seconds_of_eight=0.42, instances=8), replace(FREE, running=2), 1061.0, "a request alone takes 210 ms"),
        (SeenBatches(), replace(FREE, refused="CUDA out of memory"), 1001.0, "refused: CUDA out of memory"),
        (SeenBatches(), FREE, 1601.0, "could not be measured within 600 s"),
    ],
    ids=["too little gain", "a single request late", "refused", "never measured"],
)
def test_what_does_not_is_taken_back(after: SeenBatches, seen: SeenInstances, now: float, words: str) -> None:
    known, learnt = step(under_trial(), after, seen, now=now)
    assert (known.asked, known.trial) == (1, None)
    assert words in known.message
    assert learnt is BEFORE, "the curve of before holds again"
    assert step(known, now=now + 3600)[0] == known, "not again within a day"


def test_a_trial_ends_when_the_version_changes() -> None:
    known, learnt = step(under_trial(), SeenBatches(), FREE, now=1010.0, undisturbed=False)
    assert (known.asked, learnt) == (1, BEFORE)


@pytest.mark.parametrize("executions", [10, 300])
def test_nothing_is_judged_before_it_was_measured(executions: int) -> None:
    few = batches(seconds_of_eight=0.11, instances=2, executions=executions)
    running = 2 if executions < 100 else 1
    trial = under_trial()
    assert step(trial, few, replace(FREE, running=running), now=1061.0) == (trial, few)


def test_a_trial_asks_for_one_more() -> None:
    curve = BEFORE.curve()
    assert curve is not None
    trial = Trial(began=0.0, before=3, curve_before=curve, batches_before=BEFORE)
    assert Instances(count=3, trial=trial).asked == 4
