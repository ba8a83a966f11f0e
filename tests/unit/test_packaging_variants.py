"""Which variant is kept: never one that loses too much, never one that gains nothing, and a reason for each."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto

from conch.packaging.optimise.latency import Latency
from conch.packaging.optimise.score import Score
from conch.packaging.optimise.variants import GAIN_LEAST, Variant, choose, speed_up

DROP = 0.01


def variant(
    name: str,
    one_us: float = 100,
    most_us: float = 1000,
    value: float | None = 0.9,
    *,
    size: int = 1000,
    for_gpu: bool = False,
    origin: str | None = None,
) -> Variant:
    return Variant(
        name=name,
        graph=ModelProto(),
        bytes=size,
        score=None if value is None else Score(metric="accuracy", value=value),
        latency=Latency(one_us=one_us, most_us=most_us),
        batch_deviation=0.0,
        parity=None,
        for_gpu=for_gpu,
        origin=origin,
    )


FP32 = variant("fp32")


def kept(*others: Variant, first: Variant = FP32, max_drop: float = DROP) -> str:
    return choose((first, *others), max_drop=max_drop).kept.name


def reason(name: str, *others: Variant, first: Variant = FP32, max_drop: float = DROP) -> str:
    return choose((first, *others), max_drop=max_drop).reasons[name]


def test_alone() -> None:
    choice = choose([FP32], max_drop=DROP)
    assert (choice.kept, choice.reasons) == (FP32, {})
    assert choice.why.startswith("it is the model as it came")


def test_the_fastest_that_holds_the_score() -> None:
    # The MLP of the design's table.
    first = variant("fp32", 25.6, 211, 0.969, size=1_212_000)
    dynamic, static = variant("dynamic", 13.7, 76, 0.969, size=312_000), variant("static", 18.7, 79, 0.969)
    choice = choose((first, dynamic, static), max_drop=DROP)
    assert choice.kept is dynamic
    assert choice.why == "2.28 x as fast as fp32 and accuracy 0.9690 -> 0.9690; 1,212,000 -> 312,000 bytes"
    assert choice.reasons == {
        "fp32": "dynamic is 2.28 x as fast: one sample 25.6 -> 13.7 us, full batch 211.0 -> 76.0 us",
        "static": (
            "1.91 x as fast as fp32, but dynamic is 2.28 x: one sample 13.7 -> 18.7 us, full batch 76.0 -> 79.0 us"
        ),
    }


def test_slower_is_not_kept() -> None:
    # The CNN of the design's table: dynamic int8 is 6 times as slow.
    first = variant("fp32", 116, 2942, 0.982, size=1_701_000)
    dynamic, static = variant("dynamic", 648, 19_705, 0.982, size=436_000), variant("static", 94, 2150, 0.982)
    choice = choose((first, dynamic, static), max_drop=DROP)
    assert choice.kept is static
    assert choice.reasons["dynamic"] == (
        "slower for one sample and for a full batch: one sample 116.0 -> 648.0 us, full batch 2,942.0 -> 19,705.0 us; "
        "1,701,000 -> 436,000 bytes"
    )


def test_an_accuracy_drop_is_not_kept() -> None:
    # BERT of the design's table: static int8 of all operators.
    first = variant("fp32", 220, 28_189, 0.823)
    assert reason("static", variant("static", 178, 15_105, 0.743), first=first) == (
        "accuracy 0.8230 -> 0.7430, a drop of 0.0800: more than --max-drop 0.01"
    )
    assert kept(variant("static", 178, 15_105, 0.743), first=first) == "fp32"
    assert kept(variant("static", 178, 15_105, 0.743), first=first, max_drop=0.08) == "static"


def test_a_drop_of_exactly_what_is_allowed_is_kept() -> None:
    # In floats 0.97 - 0.96 is more than 0.01.
    assert 0.97 - 0.96 > 0.01
    assert kept(variant("b", 10, 100, 0.96), first=variant("a", value=0.97)) == "b"
    assert kept(variant("b", 10, 100, 0.9599), first=variant("a", value=0.97)) == "a"


def test_pruned_and_quantised_is_compared_with_pruned() -> None:
    first = variant("fp32", 116, 2942, 0.982)
    pruned, both = variant("pruned", 43, 792, 0.991), variant("pruned, static", 80, 1513, 0.991, origin="pruned")
    choice = choose((first, pruned, both), max_drop=DROP)
    assert choice.kept is pruned
    assert choice.reasons["pruned, static"] == (
        "1.68 x as fast as fp32, but pruned is 3.17 x: one sample 43.0 -> 80.0 us, full batch 792.0 -> 1,513.0 us"
    )


@pytest.mark.parametrize(
    ("one_us", "most_us", "name"),
    [
        (100 / 1.04, 1000 / 1.04, "fp32"),
        (100 / 1.06, 1000 / 1.06, "b"),
        (100, 1000 / 1.2, "b"),
        (104, 500, "b"),
        (106, 500, "fp32"),
        (50, 1060, "fp32"),
        (100, 1000, "fp32"),
    ],
)
def test_a_gain_is_more_than_noise_and_costs_nothing_elsewhere(one_us: float, most_us: float, name: str) -> None:
    assert kept(variant("b", one_us, most_us)) == name


def test_a_small_gain_says_how_small() -> None:
    assert reason("b", variant("b", 98, 980)).startswith(
        "1.02 x as fast, less than 1.05 x: one sample 100.0 -> 98.0 us"
    )
    assert reason("b", variant("b", 50, 1100)).startswith("slower for a full batch: one sample 100.0 -> 50.0 us")
    assert reason("b", variant("b", 110, 100)).startswith("slower for one sample: ")


@pytest.mark.parametrize(("before", "after"), [(None, 0.9), (0.9, None), (None, None)])
def test_what_nobody_measured_is_not_kept(before: float | None, after: float | None) -> None:
    first, other = variant("fp32", value=before), variant("b", 1, 1, after)
    assert kept(other, first=first) == "fp32"
    assert reason("b", other, first=first) == "nobody measured what it costs: there is no held-out data (--data)"
    gpu = variant("fp16", value=after, for_gpu=True, origin="fp32")
    assert kept(gpu, first=first) == "fp32"


def test_a_score_that_is_no_number_is_not_kept() -> None:
    assert kept(variant("b", 1, 1, math.nan)) == "fp32"


def test_fp16_is_kept_when_asked_and_the_score_holds_whatever_the_cpu_says() -> None:
    fp16 = variant("fp16", 4_200, 121_000, 0.9, for_gpu=True, origin="fp32")
    int8 = variant("int8", 50, 500)
    choice = choose((FP32, int8, fp16), max_drop=DROP)
    assert choice.kept is fp16
    assert choice.why == (
        "asked for, and accuracy 0.9000 -> 0.9000; its gain shows on a GPU, not in the CPU latencies measured here"
    )
    assert choice.reasons == {
        "fp32": "fp16 was asked for and keeps the score",
        "int8": "fp16 was asked for and keeps the score; on this CPU it is 2.00 x as fast as fp32",
    }


def test_fp16_that_loses_is_not_kept() -> None:
    fp16 = variant("fp16", 1, 1, 0.5, for_gpu=True, origin="fp32")
    assert kept(fp16) == "fp32"
    assert kept(fp16, variant("int8", 50, 500)) == "int8"
    assert reason("fp16", fp16) == "accuracy 0.9000 -> 0.5000, a drop of 0.4000: more than --max-drop 0.01"


@pytest.mark.parametrize(("pruned_us", "name"), [(40, "pruned, fp16"), (200, "fp16")])
def test_of_two_for_gpus_that_whose_origin_is_faster(pruned_us: float, name: str) -> None:
    others = (
        variant("pruned", pruned_us, 10 * pruned_us),
        variant("fp16", for_gpu=True, origin="fp32"),
        variant("pruned, fp16", for_gpu=True, origin="pruned"),
    )
    choice = choose((FP32, *others), max_drop=DROP)
    assert choice.kept.name == name
    other = "fp16" if name != "fp16" else "pruned, fp16"
    assert choice.reasons[other] == f"{name}'s origin {choice.kept.origin} is faster on this CPU"


def test_of_equals_the_first() -> None:
    assert kept(variant("b", 50, 500), variant("c", 50, 500)) == "b"


latencies = st.floats(min_value=0.1, max_value=1e7)


@st.composite
def candidates(draw: st.DrawFn) -> Sequence[Variant]:
    count = draw(st.integers(min_value=1, max_value=6))
    scores = st.one_of(st.none(), st.floats(min_value=0, max_value=1), st.just(math.nan))
    return [
        variant(
            str(index),
            draw(latencies),
            draw(latencies),
            draw(scores),
            for_gpu=index > 0 and draw(st.booleans()),
            origin=str(draw(st.integers(0, index - 1))) if index else None,
        )
        for index in range(count)
    ]


@given(variants=candidates(), max_drop=st.floats(min_value=0, max_value=0.5))
def test_properties(variants: Sequence[Variant], max_drop: float) -> None:
    choice = choose(variants, max_drop=max_drop)
    first = variants[0]
    assert choice.kept in variants
    # A reason for each that is not kept, and one for that which is.
    assert choice.reasons.keys() == {each.name for each in variants if each is not choice.kept}
    assert all(choice.reasons.values())
    assert choice.why
    holds = [
        each
        for each in variants[1:]
        if first.score and each.score and first.score.value - each.score.value <= max_drop + 1e-9
    ]
    gains = [
        each
        for each in holds
        if not each.for_gpu
        and speed_up(first, each) >= GAIN_LEAST
        and each.latency.one_us <= first.latency.one_us * GAIN_LEAST
        and each.latency.most_us <= first.latency.most_us * GAIN_LEAST
    ]
    for_gpu = [each for each in holds if each.for_gpu]
    if choice.kept is first:
        assert not gains
        assert not for_gpu
    else:
        assert choice.kept in (for_gpu or gains)
        if not for_gpu:
            assert speed_up(first, choice.kept) == max(speed_up(first, each) for each in gains)


@given(variants=candidates())
def test_the_order_of_the_others_matters_only_among_equals(variants: Sequence[Variant]) -> None:
    first, *others = variants
    speeds = [speed_up(first, each) for each in others]
    gpus = [each for each in others if each.for_gpu]
    if len(set(speeds)) == len(speeds) and len(gpus) < 2:
        forwards, backwards = (choose((first, *order), max_drop=DROP) for order in (others, others[::-1]))
        assert forwards == choose((first, *others), max_drop=DROP)
        assert (forwards.kept, forwards.reasons) == (backwards.kept, backwards.reasons)
