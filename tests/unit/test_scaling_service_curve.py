"""The time of a batch, learnt from what was executed."""

from dataclasses import replace

import pytest

from conch.core.scaling.service_curve import SeenBatches, ServiceCurve
from conch.core.scaling.signals import BatchTimes

BASE, PER_ITEM = 0.004, 0.001


def batches(*sizes: int, executions: int = 1000, name: str = "m", max_batch: int = 8, **fields: object) -> BatchTimes:
    """What a model told whose batch of n takes 4 ms + n x 1 ms."""
    return BatchTimes(
        name=name,
        max_batch=max_batch,
        instances=int(fields.pop("instances", 1)),  # type: ignore[call-overload]  # fields as the test gives them
        requests=sum(size * executions for size in sizes),
        sizes=tuple((size, executions, executions * (BASE + PER_ITEM * size)) for size in sizes),
        **fields,  # type: ignore[arg-type]  # fields as the test gives them
    )


def curve(*told: BatchTimes) -> ServiceCurve:
    learnt = SeenBatches().with_(told).curve()
    assert learnt is not None
    return learnt


@pytest.mark.parametrize(
    ("base", "per_item", "max_batch", "instances", "ceiling"),
    [(0.01, 0.0, 1, 1, 100), (0.01, 0.0, 1, 4, 400), (0.002, 0.001, 8, 1, 800), (0.0, 30.0, 1, 1, 1 / 30)],
)
def test_a_servers_ceiling_is_that_of_full_batches_on_all_its_instances(
    base: float, per_item: float, max_batch: int, instances: int, ceiling: float
) -> None:
    made = ServiceCurve(base_seconds=base, per_item_seconds=per_item, max_batch=max_batch, instances=instances)
    assert made.ceiling == pytest.approx(ceiling)


def test_base_and_slope_are_found_from_several_batch_sizes() -> None:
    learnt = curve(batches(1, 2, 4, 8))
    assert learnt.base_seconds == pytest.approx(BASE, rel=0.02)
    assert learnt.per_item_seconds == pytest.approx(PER_ITEM, rel=0.02)
    assert learnt.max_batch == 8


def test_of_one_size_three_tenths_are_taken_for_the_base_and_no_large_batch_is_counted_on() -> None:
    learnt = curve(batches(1))
    assert learnt.base_seconds == pytest.approx(0.3 * (BASE + PER_ITEM))
    assert learnt.batch_seconds(1) == pytest.approx(BASE + PER_ITEM)
    assert learnt.max_batch == 2


def test_a_size_that_is_rare_counts_less_and_one_of_first_executions_not_at_all() -> None:
    slow_first = BatchTimes(name="m", max_batch=8, instances=1, sizes=((8, 2, 20.0),))
    assert curve(batches(1, 2, 4), slow_first).batch_seconds(8) == pytest.approx(BASE + 8 * PER_ITEM, rel=0.05)
    rare = BatchTimes(name="m", max_batch=8, instances=1, sizes=((8, 5, 5 * 0.024),))
    assert curve(batches(1, 2, 4), rare).batch_seconds(4) == pytest.approx(BASE + 4 * PER_ITEM, rel=0.1)


@pytest.mark.parametrize("sizes", [((1, 100, 0.9), (2, 100, 0.1)), ((1, 100, 0.1), (2, 100, 9.0))])
def test_no_data_make_a_batch_take_negative_time(sizes: tuple[tuple[int, int, float], ...]) -> None:
    learnt = curve(BatchTimes(name="m", max_batch=8, instances=1, sizes=sizes))
    assert learnt.base_seconds >= 0
    assert learnt.per_item_seconds >= 0
    assert learnt.ceiling > 0


def test_requests_of_several_items_are_counted_as_requests() -> None:
    told = BatchTimes(
        name="m",
        max_batch=8,
        instances=1,
        requests=1000,
        items=4000,
        item_requests=1000,
        sizes=tuple((size, 250, 250 * (BASE + PER_ITEM * size)) for size in (2, 4, 6, 4)),
    )
    learnt = curve(told)
    assert learnt.per_item_seconds == pytest.approx(4 * PER_ITEM, rel=0.1)
    assert learnt.max_batch == 2


def test_an_ensembles_curve_is_that_of_its_slowest_member_and_the_others_add_their_time() -> None:
    slow = BatchTimes(name="slow", max_batch=8, instances=1, sizes=((1, 100, 5.0), (8, 100, 12.0)))
    learnt = curve(batches(1, 8, name="quick"), slow)
    assert learnt.model == "slow"
    assert learnt.others_seconds == pytest.approx(BASE + PER_ITEM, rel=0.05)
    assert learnt.ceiling == pytest.approx(8 / 0.12, rel=0.05)
    assert learnt.least_seconds == pytest.approx(0.055, rel=0.05)


def test_nothing_executed_is_no_curve() -> None:
    assert SeenBatches().curve() is None
    assert SeenBatches().with_([batches()]).curve() is None


@pytest.mark.parametrize("change", [{"max_batch": 16}, {"instances": 2}, {"decoupled": True}])
def test_a_model_that_is_configured_otherwise_is_learnt_anew(change: dict[str, object]) -> None:
    before = SeenBatches().with_([batches(1, 8)])
    assert before.with_([batches(**change)]).curve() is None  # type: ignore[arg-type]  # fields as the test gives them


def test_a_model_that_becomes_slower_is_soon_known_to_be() -> None:
    seen = SeenBatches().with_([batches(1, 4, executions=100_000)])
    slow = BatchTimes(
        name="m", max_batch=8, instances=1, requests=50_000, sizes=((1, 10_000, 100.0), (4, 10_000, 160.0))
    )
    for _ in range(6):
        seen = seen.with_([slow])
    learnt = seen.curve()
    assert learnt is not None
    assert learnt.batch_seconds(4) == pytest.approx(0.016, rel=0.1)


def test_a_member_that_a_new_version_does_not_have_any_more_is_forgotten() -> None:
    slow = BatchTimes(name="old", max_batch=1, instances=1, decoupled=True, sizes=((1, 100, 100.0),))
    seen = SeenBatches().with_([batches(1, 8), slow])
    for _ in range(30):
        seen = seen.with_([batches(1, 8)])
    assert set(seen.models) == {"m", "old"}
    for _ in range(60):
        seen = seen.with_([batches(1, 8)])
    assert set(seen.models) == {"m"}
    assert not seen.is_decoupled


@pytest.mark.parametrize(("factor", "alike"), [(1.0, True), (1.05, True), (0.95, True), (1.2, False), (0.8, False)])
def test_curves_are_alike_within_a_tenth(factor: float, alike: bool) -> None:
    known = ServiceCurve(base_seconds=BASE, per_item_seconds=PER_ITEM, max_batch=8)
    other = ServiceCurve(base_seconds=BASE * factor, per_item_seconds=PER_ITEM * factor, max_batch=8)
    assert known.is_like(other) is alike
    assert not known.is_like(ServiceCurve(base_seconds=BASE, per_item_seconds=PER_ITEM, max_batch=4))


def test_a_batch_time_that_grows_faster_than_its_size_has_no_fixed_part_and_not_less() -> None:
    for number in range(200):
        sizes = ((1, 7, 7 * 0.001), (3, 11, 11 * (0.0031 + number * 1e-6)), (5, 13, 13 * 0.0061))
        learnt = curve(BatchTimes(name="m", max_batch=8, instances=1, sizes=sizes))
        assert learnt.base_seconds >= 0


def test_what_takes_no_time_at_all_was_not_executed() -> None:
    told = BatchTimes(name="m", max_batch=1, instances=1, sizes=((1, 10**9, 5e-324), (1, 1000, 1e-12)))
    assert SeenBatches().with_([told]).curve() is None


def test_however_many_sizes_and_models_are_told_only_the_most_executed_are_remembered() -> None:
    seen = SeenBatches()
    for first in range(1, 2000, 64):
        sizes = tuple((size, 3, 0.3) for size in range(first, first + 64))
        told = BatchTimes(name="m", max_batch=4096, instances=1, sizes=((1, 1000, 5.0), *sizes))
        seen = seen.with_([told])
    assert len(seen.models["m"].sizes) == 64
    assert 1 in seen.models["m"].sizes
    many = [replace(told, name=f"m{number}") for number in range(50)]
    assert len(SeenBatches().with_(many).models) == 16


def test_without_a_batcher_each_request_is_a_batch_of_its_own() -> None:
    told = replace(batches(1, 2, 4), joins_requests=False)
    assert curve(told).max_batch == 1
    assert curve(told).ceiling == pytest.approx(1 / (BASE + PER_ITEM), rel=0.02)
