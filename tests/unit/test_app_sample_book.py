"""What was seen since a window was opened: differences of counters whose sources come, go and begin anew."""

from typing import Any, Final

from hypothesis import given
from hypothesis import strategies as st

from conch.api.agent_report import AgentPhase, AgentReport, GoldenOutcome, GoldenReport
from conch.api.gateway_report import ObjectTraffic, WorkloadTraffic
from conch.api.inference_counts import InferenceCounts
from conch.app.sample_book import SampleBook
from conch.core.analysis.samples import Samples
from conch.core.observed import ObservedGateway
from conch.core.observed_pod import ObservedPod

UID: Final = "uid"


def gateway(name: str = "g1", epoch: str = "e1", /, **workloads: WorkloadTraffic) -> ObservedGateway:
    traffic = ObjectTraffic(workloads=workloads)
    return ObservedGateway(name=name, address="10.1.0.1", ready=True, heard=True, epoch=epoch, traffic=traffic)


def sent(arrivals: int, *, in_flight: int = 0, latency: tuple[int, ...] = (), **failures: int) -> WorkloadTraffic:
    return WorkloadTraffic(arrivals=arrivals, in_flight=in_flight, failures=failures, latency=latency)


def pod(
    requests: int, queue_seconds: float, *, uid: str = "p1", epoch: str = "e1", workload: str = "w1"
) -> ObservedPod:
    told = InferenceCounts(epoch=epoch, requests=requests, failures=0, queue_seconds=queue_seconds)
    report = AgentReport(phase=AgentPhase.READY, revision="r", inference=told)
    return ObservedPod(name=uid, uid=uid, workload=workload, report=report)


def book() -> SampleBook:
    samples = SampleBook()
    samples.open(UID, "w2/Shifting/0")
    return samples


def read(samples: SampleBook, *sources: ObservedGateway | ObservedPod) -> dict[str, Samples]:
    window = samples.read(
        UID,
        [each for each in sources if isinstance(each, ObservedGateway)],
        [each for each in sources if isinstance(each, ObservedPod)],
    )
    assert window is not None
    assert window.name == "w2/Shifting/0"
    return dict(window.samples)


def test_without_a_window_nothing_is_counted() -> None:
    samples = SampleBook()
    assert samples.read(UID, [gateway(w1=sent(5))], []) is None
    samples.open(UID, "w2/Shifting/0")
    samples.forget(UID)
    assert samples.read(UID, [gateway(w1=sent(9))], []) is None
    samples.forget(UID)


def test_what_was_before_the_window_is_not_in_it() -> None:
    samples = book()
    assert read(samples, gateway(w1=sent(500, server=9))) == {}
    assert read(samples, gateway(w1=sent(500, server=9))) == {"w1": Samples()}


def test_requests_count_when_they_come_to_an_end() -> None:
    samples = book()
    read(samples, gateway(w1=sent(100, in_flight=10)))
    seen = read(samples, gateway(w1=sent(150, in_flight=20)))
    assert seen == {"w1": Samples(requests=40)}
    assert read(samples, gateway(w1=sent(150))) == {"w1": Samples(requests=60)}


def test_failures_of_all_classes_are_added_up() -> None:
    samples = book()
    read(samples, gateway(w1=sent(10, server=1)))
    seen = read(samples, gateway(w1=sent(20, server=2, timeout=3, connection=4)))
    assert seen == {"w1": Samples(requests=10, failures=8)}


def test_latencies_are_added_bucket_by_bucket_however_long() -> None:
    samples = book()
    read(samples, gateway(w1=sent(3, latency=(1, 2))))
    assert read(samples, gateway(w1=sent(10, latency=(1, 4, 0, 5)))) == {
        "w1": Samples(requests=7, latency=(0, 2, 0, 5))
    }
    assert read(samples, gateway(w1=sent(11, latency=(2, 4, 0, 5)))) == {
        "w1": Samples(requests=8, latency=(1, 2, 0, 5))
    }


def test_each_workload_is_counted_by_itself_and_all_gateways_together() -> None:
    samples = book()
    read(samples, gateway("g1", w1=sent(0), w2=sent(0)), gateway("g2", w1=sent(0), w2=sent(0)))
    seen = read(samples, gateway("g1", w1=sent(90), w2=sent(9)), gateway("g2", w1=sent(80), w2=sent(8)))
    assert seen == {"w1": Samples(requests=170), "w2": Samples(requests=17)}


def test_a_gateway_that_begins_anew_loses_what_it_counted_but_not_what_was_read() -> None:
    samples = book()
    read(samples, gateway("g1", "e1", w1=sent(100)))
    read(samples, gateway("g1", "e1", w1=sent(130)))
    # 20 in its new life that nobody can tell from what was before.
    assert read(samples, gateway("g1", "e2", w1=sent(20))) == {"w1": Samples(requests=30)}
    assert read(samples, gateway("g1", "e2", w1=sent(25))) == {"w1": Samples(requests=35)}


def test_a_gateway_that_comes_counts_from_then_on_and_one_that_goes_until_then() -> None:
    samples = book()
    read(samples, gateway("g1", w1=sent(100)))
    assert read(samples, gateway("g1", w1=sent(110)), gateway("g2", w1=sent(1000))) == {"w1": Samples(requests=10)}
    assert read(samples, gateway("g2", w1=sent(1001))) == {"w1": Samples(requests=11)}
    # It was away for a moment: what it counted meanwhile happened.
    seen = read(samples, gateway("g1", w1=sent(120)), gateway("g2", w1=sent(1001)))
    assert seen == {"w1": Samples(requests=21)}


def test_a_gateway_that_was_never_heard_counts_nothing() -> None:
    silent = ObservedGateway(name="g1", address="10.1.0.1", ready=True)
    assert read(book(), silent) == {}


def test_a_counter_that_falls_for_a_moment_takes_nothing_away() -> None:
    samples = book()
    read(samples, gateway(w1=sent(100, server=5, latency=(9,))))
    read(samples, gateway(w1=sent(110, server=6, latency=(10,))))
    assert read(samples, gateway(w1=sent(110, in_flight=5, server=6, latency=(9,)))) == {
        "w1": Samples(requests=10, failures=1, latency=(1,))
    }


def test_what_a_counter_had_grown_before_it_fell_is_not_counted_twice() -> None:
    samples = book()
    read(samples, gateway(w1=sent(100)))
    for in_flight in (0, 20, 0, 20, 0):
        seen = read(samples, gateway(w1=sent(130, in_flight=in_flight)))
    assert seen == {"w1": Samples(requests=30)}


def test_a_request_for_which_there_was_no_server_has_failed_and_come_to_an_end() -> None:
    samples = book()
    read(samples, gateway(w1=sent(100)))
    assert read(samples, gateway(w1=sent(100, unavailable=7))) == {"w1": Samples(requests=7, failures=7)}


def test_the_pods_own_queues_are_counted() -> None:
    samples = book()
    read(samples, pod(100, 1.5), pod(7, 0.5, uid="p2", workload="w2"))
    seen = read(samples, pod(150, 2.0), pod(8, 0.75, uid="p2", workload="w2"))
    assert seen == {
        "w1": Samples(queued_requests=50, queue_seconds=0.5),
        "w2": Samples(queued_requests=1, queue_seconds=0.25),
    }


def test_a_pod_whose_triton_counts_anew_begins_anew() -> None:
    samples = book()
    read(samples, pod(100, 8.0))
    assert read(samples, pod(3, 0.25, epoch="e2")) == {}
    assert read(samples, pod(5, 0.5, epoch="e2")) == {"w1": Samples(queued_requests=2, queue_seconds=0.25)}


def test_pods_that_do_not_tell_count_nothing() -> None:
    unasked = ObservedPod(name="p1", uid="p1", workload="w1")
    untold = ObservedPod(name="p2", uid="p2", workload="w1", report=AgentReport(phase=AgentPhase.LOADING))
    assert read(book(), unasked, untold) == {}


def test_requests_and_queues_of_a_workload_are_one_sample() -> None:
    samples = book()
    read(samples, gateway(w1=sent(0)), pod(0, 0.0))
    seen = read(samples, gateway(w1=sent(10)), pod(9, 0.5))
    assert seen == {"w1": Samples(requests=10, queued_requests=9, queue_seconds=0.5)}


def test_another_window_begins_with_nothing() -> None:
    samples = book()
    read(samples, gateway(w1=sent(0)))
    read(samples, gateway(w1=sent(50)))
    samples.open(UID, "w2/Shifting/0")
    assert read(samples, gateway(w1=sent(60))) == {}
    assert read(samples, gateway(w1=sent(61))) == {"w1": Samples(requests=1)}


def test_each_object_has_its_own_window() -> None:
    samples = book()
    samples.open("other", "x")
    read(samples, gateway(w1=sent(0)))
    samples.forget("other")
    assert read(samples, gateway(w1=sent(5))) == {"w1": Samples(requests=5)}


def test_what_was_read_is_not_changed_afterwards() -> None:
    samples = book()
    read(samples, gateway(w1=sent(0)))
    before = samples.read(UID, [gateway(w1=sent(1))], [])
    read(samples, gateway(w1=sent(2)))
    assert before is not None
    assert before.samples["w1"] == Samples(requests=1)


COUNTS: Final = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), min_size=1, max_size=20)


@given(grown=COUNTS)
def test_all_that_a_source_counts_in_one_life_is_counted_once(grown: list[tuple[int, int]]) -> None:
    samples, arrivals, failures = book(), 1000, 100
    read(samples, gateway(w1=sent(arrivals, server=failures)))
    seen: dict[str, Any] = {}
    for more, failed in grown:
        arrivals, failures = arrivals + more, failures + failed
        seen = read(samples, gateway(w1=sent(arrivals, server=failures)))
    total = Samples(requests=sum(more for more, _ in grown), failures=sum(failed for _, failed in grown))
    assert seen == {"w1": total}


def by_pods(samples: SampleBook, *sources: ObservedGateway | ObservedPod) -> dict[str, Samples]:
    window = samples.read(
        UID,
        [each for each in sources if isinstance(each, ObservedGateway)],
        [each for each in sources if isinstance(each, ObservedPod)],
        by_pods=True,
    )
    assert window is not None
    return dict(window.samples)


def counting(answered: int, failed: int, **report: Any) -> ObservedPod:
    told = InferenceCounts(epoch="e1", requests=answered, failures=failed, queue_seconds=0)
    said = AgentReport(phase=AgentPhase.READY, revision="r", inference=told, **report)
    return ObservedPod(name="p1", uid="p1", workload="w1", report=said)


def test_where_requests_pass_by_the_gateways_the_pods_count_them() -> None:
    samples = book()
    by_pods(samples, gateway(w1=sent(0)), counting(10, 1))
    read_now = by_pods(samples, gateway(w1=sent(50)), counting(40, 4))
    assert read_now == {"w1": Samples(requests=33, failures=3, queued_requests=30)}


def test_the_replay_of_a_golden_set_is_nobodys_request() -> None:
    samples = book()
    by_pods(samples, counting(0, 0, replays_golden_set=True))
    by_pods(samples, counting(8, 0, replays_golden_set=True, golden=GoldenReport(outcome=GoldenOutcome.PASSED)))
    done = by_pods(samples, counting(9, 0, replays_golden_set=True, golden=GoldenReport(outcome=GoldenOutcome.PASSED)))
    assert done == {"w1": Samples(requests=1, queued_requests=1)}
