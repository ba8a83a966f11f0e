"""What the operator is told, for Prometheus: by object and workload, so that what goes vanishes with its report."""

import math
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from conch.api.gateway_report import LATENCY_BOUNDS_MILLISECONDS, GatewayReport, WorkloadTraffic

_OBJECT: Final = ("namespace", "name")
_WORKLOAD: Final = (*_OBJECT, "workload")
_SHOWN_BOUNDS_MILLISECONDS: Final = (
    *(1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000),
    *(60_000, 300_000, 600_000, 1_800_000, 3_600_000),
)
"""Of LATENCY_BOUNDS_MILLISECONDS: each is a time series per workload, and a graph needs fewer than a verdict."""


def exposition(report: GatewayReport) -> bytes:
    """The report in Prometheus' format. Labels: namespace, name, workload, and one of four classes of failures."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(report))
    return generate_latest(registry)


class _Collector:
    def __init__(self, report: GatewayReport) -> None:
        self._report = report

    def collect(self) -> Iterator[Metric]:
        yield from self._of_objects()
        yield from self._of_workloads()

    def _of_objects(self) -> Iterator[Metric]:
        arrivals = CounterMetricFamily(
            "conch_gateway_requests", "Requests that came in and were let in.", labels=_OBJECT
        )
        unauthorized = CounterMetricFamily(
            "conch_gateway_unauthorized", "Requests that were not let in.", labels=_OBJECT
        )
        refused = CounterMetricFamily("conch_gateway_refused", "Requests refused by hold or limit.", labels=_OBJECT)
        in_flight = GaugeMetricFamily("conch_gateway_in_flight", "Requests not yet answered.", labels=_OBJECT)
        held = GaugeMetricFamily("conch_gateway_held", "Requests that wait for a server.", labels=_OBJECT)
        endpoints = GaugeMetricFamily("conch_gateway_endpoints", "Servers in Envoy's configuration.", labels=_OBJECT)
        acknowledged = GaugeMetricFamily(
            "conch_gateway_acknowledged", "1 if Envoy does all that the object wants.", labels=_OBJECT
        )
        for key, traffic in self._report.objects.items():
            labels = key.split("/", 1)
            arrivals.add_metric(labels, traffic.arrivals)
            unauthorized.add_metric(labels, traffic.unauthorized)
            refused.add_metric(labels, traffic.refused)
            in_flight.add_metric(labels, traffic.in_flight)
            held.add_metric(labels, traffic.held)
            endpoints.add_metric(labels, traffic.endpoints)
            acknowledged.add_metric(labels, float(bool(traffic.generation) and not traffic.waits_for))
        yield from (arrivals, unauthorized, refused, in_flight, held, endpoints, acknowledged)

    def _of_workloads(self) -> Iterator[Metric]:
        sent = CounterMetricFamily(
            "conch_gateway_workload_requests", "Requests sent to servers, each once.", labels=_WORKLOAD
        )
        in_flight = GaugeMetricFamily(
            "conch_gateway_workload_in_flight", "Requests that servers have.", labels=_WORKLOAD
        )
        failures = CounterMetricFamily(
            "conch_gateway_workload_failures", "Answers that no client should get.", labels=(*_WORKLOAD, "class")
        )
        latency = HistogramMetricFamily(
            "conch_gateway_workload_latency_seconds", "Time to the whole answer of a server.", labels=_WORKLOAD
        )
        for key, traffic in self._report.objects.items():
            for workload, each in traffic.workloads.items():
                labels = [*key.split("/", 1), workload]
                sent.add_metric(labels, each.arrivals)
                in_flight.add_metric(labels, each.in_flight)
                for class_, number in each.failures.items():
                    failures.add_metric([*labels, class_], number)
                # Envoy keeps no exact sum.
                latency.add_metric(labels, _cumulated(each), sum_value=None)
        yield from (sent, in_flight, failures, latency)


def _cumulated(traffic: WorkloadTraffic) -> list[tuple[str, float]]:
    totals = dict(zip((*LATENCY_BOUNDS_MILLISECONDS, math.inf), accumulate(traffic.latency_counts), strict=True))
    buckets = [(str(bound / 1000), float(totals[bound])) for bound in _SHOWN_BOUNDS_MILLISECONDS]
    return [*buckets, ("+Inf", float(totals[math.inf]))]
