"""From Envoy's statistics, as Envoy 1.40 gave them, to what is told of the traffic."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import cast

import pytest

from conch.api.gateway import Gateway
from conch.api.gateway_report import LATENCY_BOUNDS_MILLISECONDS, FailureClass, GatewayReport, ObjectTraffic
from conch.gateway.envoy.admin import EnvoyAdmin, Histogram, ServerInfo
from conch.gateway.envoy.admission import Admission
from conch.gateway.envoy.bootstrap import BootstrapOptions, render_bootstrap
from conch.gateway.envoy.external_authorization import ExternalAuthorization
from conch.gateway.epoch import Epoch
from conch.gateway.metrics import exposition
from conch.gateway.routed import RoutedObject, RoutedShare, Snapshot
from conch.gateway.sync import RouteState
from conch.gateway.traffic import Counts, Sent, TrafficReader, buckets, count, make_report
from tests.support.envoy import MEMORY_BYTES
from tests.support.virtual_time import run_virtually

ROUTED = RoutedObject(
    namespace="ns",
    name="a",
    uid="u",
    created="2026",
    port=10_000,
    generation="g7",
    gateway=Gateway(),
    shares=tuple(RoutedShare(workload=each, weight=25) for each in ("w1", "w2", "w3", "w4")),
    desired_replicas=1,
)
KEY = ROUTED.key
SERVICE = ExternalAuthorization(host="authz", port=9000, timeout_milliseconds=100)

# Recorded, but for names, and for what is in flight. w1, HTTP: 3 answers, a 500, a 503 that a retry mended, a 503
# thrice, a time-out, one that broke in the middle of the answer, one that was reset, and one whose client went away.
# w1, gRPC: OK, INTERNAL, INVALID_ARGUMENT and a time-out. w2: 6 requests to one server that is there and one that is
# not. w3: 2 requests, no server takes connections. w4: 2 requests, no server at all.
STATS: dict[str, int | str] = {
    "cluster.ns/w1/http.upstream_rq_active": 0,
    "cluster.ns/w1/http.upstream_rq_pending_failure_eject": 0,
    "cluster.ns/w1/http.upstream_rq_pending_overflow": 0,
    "cluster.ns/w1/http.upstream_rq_retry": 3,
    "cluster.ns/w1/http.upstream_rq_total": 13,
    "cluster.ns/w1/grpc.upstream_rq_active": 2,
    "cluster.ns/w1/grpc.upstream_rq_retry": 0,
    "cluster.ns/w1/grpc.upstream_rq_total": 4,
    "cluster.ns/w2/http.upstream_rq_pending_failure_eject": 5,
    "cluster.ns/w2/http.upstream_rq_retry": 5,
    "cluster.ns/w2/http.upstream_rq_total": 6,
    "cluster.ns/w3/http.upstream_rq_pending_failure_eject": 6,
    "cluster.ns/w3/http.upstream_rq_retry": 4,
    "cluster.ns/w3/http.upstream_rq_total": 0,
    "cluster.ns/w4/http.upstream_rq_retry": 0,
    "cluster.ns/w4/http.upstream_rq_total": 0,
    "conch.failed.bad.cluster.ns/w1/grpc": 2,
    "conch.failed.bad.cluster.ns/w1/http": 4,
    "conch.failed.bad.cluster.ns/w3/http": 2,
    "conch.failed.bad.cluster.ns/w4/http": 2,
    "conch.failed.bad_of_envoy.cluster.ns/w1/grpc": 1,
    "conch.failed.bad_of_envoy.cluster.ns/w1/http": 2,
    "conch.failed.bad_of_envoy.cluster.ns/w3/http": 2,
    "conch.failed.bad_of_envoy.cluster.ns/w4/http": 2,
    "conch.failed.connection.cluster.ns/w1/http": 2,
    "conch.failed.connection.cluster.ns/w3/http": 2,
    "conch.failed.timeout.cluster.ns/w1/grpc": 1,
    "conch.failed.timeout.cluster.ns/w1/http": 1,
    "conch.failed.unavailable.cluster.ns/w4/http": 2,
    "conch.failed.bad.cluster.-": 3,
    "http.ns.a.downstream_rq_active": 5,
    "http.ns.a.downstream_rq_total": 24,
    "http.admin.downstream_rq_total": 999,
}
HISTOGRAMS = {
    "cluster.ns/w1/http.upstream_rq_time": Histogram(
        bounds=tuple(round(bound - 0.1, 1) for bound in LATENCY_BOUNDS_MILLISECONDS),
        counts=(3, 0, 1, 0, 0, 1, 1, *(0 for _ in LATENCY_BOUNDS_MILLISECONDS[7:]), 2),
    ),
    "cluster.ns/w1/grpc.upstream_rq_time": Histogram(bounds=(0.9, 1799999.9), counts=(1, 4, 0)),
    "cluster.ns/w2/grpc.upstream_rq_time": Histogram(bounds=(0.9, 1.9, 2.9, 3.9), counts=(5, 0, 2, 0, 0)),
    "cluster.ns/w3/http.upstream_rq_time": Histogram(bounds=(0.9,), counts=(0, 0)),
}


class Held:
    def held(self) -> Mapping[tuple[str, str], int]:
        return {KEY: 3}

    def refused(self, _key: tuple[str, str]) -> int:
        return 4


def _report(stats: dict[str, int | str] | None = None) -> GatewayReport:
    async def counts() -> Counts:
        return count(STATS if stats is None else stats, HISTOGRAMS)

    async def main() -> GatewayReport:
        return await _make_report(counts, lambda _key: RouteState(generation="g7", endpoints=2))

    return run_virtually(main)


async def _make_report(
    counts: Callable[[], Awaitable[Counts]], state: Callable[[tuple[str, str]], RouteState]
) -> GatewayReport:
    return await make_report(
        gateway="g-1",
        epoch="17",
        version="1",
        leaving=False,
        snapshot=Snapshot(objects={KEY: ROUTED}),
        counts=counts,
        state=state,
        hold=Held(),
    )


def _told() -> ObjectTraffic:
    return _report().objects["ns/a"]


def test_an_object_is_told_with_what_envoy_the_hold_and_the_synchroniser_say() -> None:
    told = _told()
    assert (told.arrivals, told.in_flight, told.held, told.refused) == (24, 5, 3, 4)
    assert (told.generation, told.endpoints, told.rejected) == ("g7", 2, False)


def test_each_request_counts_once_however_often_it_was_tried() -> None:
    workloads = _told().workloads
    assert {name: each.arrivals for name, each in workloads.items()} == {"w1": 10 + 4, "w2": 6, "w3": 2, "w4": 0}
    assert workloads["w1"].in_flight == 2


def test_failures_are_what_clients_were_answered_by_their_cause() -> None:
    assert {name: each.failures for name, each in _told().workloads.items()} == {
        "w1": {FailureClass.SERVER: 2 + 1, FailureClass.TIMEOUT: 1 + 1, FailureClass.CONNECTION: 2},
        "w2": {},
        "w3": {FailureClass.CONNECTION: 2},
        "w4": {FailureClass.UNAVAILABLE: 2},
    }


def test_what_is_over_the_limit_counts_as_refused() -> None:
    overflow: dict[str, int | str] = {"cluster.ns/w1/http.upstream_rq_pending_overflow": 6}
    assert _report(STATS | overflow).objects["ns/a"].refused == 10


def test_latencies_of_both_protocols_are_in_the_same_buckets() -> None:
    latency = _told().workloads["w1"].latency
    assert len(latency) == len(LATENCY_BOUNDS_MILLISECONDS) + 1
    assert latency[:7] == (4, 0, 1, 0, 0, 1, 1)
    assert latency[LATENCY_BOUNDS_MILLISECONDS.index(1_800_000)] == 4
    assert latency[-1] == 2


def test_zeros_at_the_end_are_not_sent_and_a_reader_has_them_again() -> None:
    workloads = _told().workloads
    assert [workloads[name].latency for name in ("w2", "w3")] == [(5, 0, 2), ()]
    assert workloads["w2"].latency_counts == (5, 0, 2, *(0 for _ in LATENCY_BOUNDS_MILLISECONDS[2:]))
    assert len(workloads["w3"].latency_counts) == len(LATENCY_BOUNDS_MILLISECONDS) + 1


def test_each_bound_that_envoy_is_told_has_a_bucket_of_its_own(tmp_path: Path) -> None:
    options = BootstrapOptions(
        gateway="g-1", dynamic_folder=tmp_path, admin_port=1, hold_port=2, memory_bytes=MEMORY_BYTES
    )
    (settings,) = json.loads(render_bootstrap(options))["stats_config"]["histogram_bucket_settings"]
    told = tuple(settings["buckets"])
    assert buckets(Histogram(bounds=told, counts=(*range(1, len(told) + 1), 0))) == [*range(1, len(told) + 1), 0]


def test_envoy_keeps_two_digits_so_no_bound_has_more() -> None:
    assert all(float(f"{bound:.1e}") == bound for bound in LATENCY_BOUNDS_MILLISECONDS)
    assert list(LATENCY_BOUNDS_MILLISECONDS) == sorted(set(LATENCY_BOUNDS_MILLISECONDS))


def test_a_bound_that_is_not_ours_is_counted_where_it_lies() -> None:
    numbers = buckets(Histogram(bounds=(25.5, 1e9), counts=(1, 2, 4)))
    assert numbers[LATENCY_BOUNDS_MILLISECONDS.index(32)] == 1
    assert numbers[-1] == 6


def test_metrics_name_what_the_report_names_and_nothing_else() -> None:
    text = exposition(_report()).decode()
    labels = 'name="a",namespace="ns"'
    assert f"conch_gateway_requests_total{{{labels}}} 24.0" in text
    assert f"conch_gateway_acknowledged{{{labels}}} 1.0" in text
    assert f'conch_gateway_workload_failures_total{{class="timeout",{labels},workload="w1"}} 2.0' in text
    latency = f'conch_gateway_workload_latency_seconds_bucket{{le="%s",{labels},workload="w1"}} %s'
    for bound, total in (("0.001", 4.0), ("0.002", 4.0), ("0.005", 5.0), ("0.01", 7.0), ("1800.0", 11.0)):
        assert latency % (bound, total) in text
    assert latency % ("+Inf", 13.0) in text
    assert 'name="a"' not in exposition(_report().model_copy(update={"objects": {}})).decode()


class Admin:
    """Statistics that somebody changes."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.told: dict[str, int | str] = dict(STATS)
        self.uptime_seconds = 100

    async def stats(self, pattern: str) -> dict[str, int | str]:
        self.asked.append(pattern)
        told = {name: value for name, value in self.told.items() if re.search(pattern, name)}
        await asyncio.sleep(0.01)
        return told

    async def histograms(self, _pattern: str) -> dict[str, Histogram]:
        return {}

    async def server_info(self) -> ServerInfo:
        return ServerInfo(state="LIVE", version="1.40", uptime_seconds=self.uptime_seconds)


def test_counts_are_never_older_than_the_question_and_envoy_is_asked_once_for_all_who_wait() -> None:
    async def main() -> None:
        admin = Admin()
        reader = TrafficReader(cast(EnvoyAdmin, admin))
        first = asyncio.create_task(reader.counts())
        await asyncio.sleep(0.001)
        admin.told["http.ns.a.downstream_rq_active"] = 0
        later = [asyncio.create_task(reader.counts()) for _ in range(3)]
        assert (await first).in_flight[KEY] == 5
        assert {(await each).in_flight[KEY] for each in later} == {0}
        assert len(admin.asked) == 2
        admin.told["http.ns.a.downstream_rq_active"] = 9
        assert (await reader.counts()).in_flight[KEY] == 9

    run_virtually(main)


def test_what_is_in_flight_is_counted_after_the_generation_that_is_told_with_it() -> None:
    async def main() -> None:
        generation = "g7"

        async def counts() -> Counts:
            nonlocal generation
            # Envoy acknowledges the next one while it is counted.
            generation = "g8"
            return count(STATS, HISTOGRAMS)

        told = await _make_report(counts, lambda _key: RouteState(generation=generation))
        assert told.objects["ns/a"].generation == "g7"

    run_virtually(main)


def test_a_total_never_goes_back_while_a_retry_is_due_but_begins_anew_with_envoy() -> None:
    async def main() -> None:
        admin = Admin()
        reader = TrafficReader(cast(EnvoyAdmin, admin))

        async def requests(**stats: int) -> int:
            admin.told |= {f"cluster.ns/w2/http.upstream_rq_{stat}": value for stat, value in stats.items()}
            return (await reader.counts()).workloads["ns", "w2"].requests

        assert await requests() == 6
        assert await requests(retry=7) == 6
        assert await requests(total=7) == 6
        assert await requests(total=9) == 7
        assert await requests(total=1, retry=0, pending_failure_eject=0) == 1

    run_virtually(main)


def test_what_was_sent_is_asked_of_the_clusters_of_those_objects_only() -> None:
    async def main() -> None:
        admin = Admin()
        reader = TrafficReader(cast(EnvoyAdmin, admin))
        assert await reader.sent([ROUTED]) == {KEY: Sent(unfinished=2, total=13 + 4 + 6)}
        assert "ns/w1/grpc|ns/w1/http|ns/w2/grpc" in admin.asked[0]

    run_virtually(main)


def test_an_envoy_keeps_its_epoch_through_restarts_of_the_sidecar(tmp_path: Path) -> None:
    async def main() -> None:
        admin = Admin()
        now = 5_000.0

        def epoch() -> Epoch:
            return Epoch(cast(EnvoyAdmin, admin), tmp_path / "epoch", clock=lambda: now)

        first = await epoch().now()
        now, admin.uptime_seconds = now + 61, 160
        assert await epoch().now() == first
        now, admin.uptime_seconds = now + 10, 3
        assert await epoch().now() != first

    run_virtually(main)


@pytest.mark.parametrize(
    ("admission", "arrivals"),
    [
        (Admission(), 20),
        (Admission(api_keys=True), 12),
        (Admission(authorization=SERVICE), 9),
        (Admission(api_keys=True, authorization=SERVICE), 9),
    ],
)
def test_what_is_not_let_in_does_not_arrive_for_models_are_scaled_by_that(admission: Admission, arrivals: int) -> None:
    stats: dict[str, int | str] = {
        "http.ns.a.downstream_rq_total": 20,
        "http.ns.a.api_key_auth.unauthorized": 5,
        "http.ns.a.rbac.allowed": 12,
        "http.ns.a.rbac.denied": 3,
        "http.ns.a.ext_authz.external.ok": 9,
        "http.ns.a.ext_authz.external.denied": 2,
        "http.ns.a.ext_authz.external.error": 1,
    }
    counts = count(stats, {}, admission=admission)
    assert (counts.arrivals[KEY], counts.unauthorized[KEY]) == (arrivals, 11)
    assert KEY not in counts.in_flight
