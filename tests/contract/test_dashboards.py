"""The dashboard and the alerts against a real Prometheus, which scrapes what operator and gateways really tell."""

import json
import math
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast

import aiohttp
import pytest
import pytest_asyncio
import yaml
from aiohttp import web
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from conch.api.autoscaling import ScalingReason
from conch.api.rollout import RolloutPhase
from conch.app import metrics
from conch.app.cluster_view import ClusterView
from conch.app.rollout_metrics import RolloutMetrics
from conch.app.scaling_metrics import ScalingMetrics
from conch.core.scaling.view import ScalingView
from conch.gateway.certificate import CertificateMetrics
from conch.gateway.metrics import exposition
from conch.kube.client import KubeClient
from tests.cluster import binaries
from tests.cluster.constants import REPOSITORY
from tests.cluster.ports import free_port
from tests.stores.process import Process
from tests.support.async_waiting import until
from tests.support.http_site import Site, serving
from tests.support.model_in_rollout import CANDIDATE, NAME, NAMESPACE, STABLE, gateway_report, model_in_rollout

pytestmark = pytest.mark.contract
one_loop = pytest.mark.asyncio(loop_scope="module")

DASHBOARDS: Final = REPOSITORY / "manifests" / "dashboards"
RULES: Final = DASHBOARDS / "rules.yaml"
CASES: Final = Path(__file__).with_name("alert_cases.yaml")
GATEWAYS: Final = 2
VARIABLES: Final = {"$namespace": NAMESPACE, "$name": NAME, "$__rate_interval": "10s"}
OF_ONE_MODEL: Final = f'namespace="{NAMESPACE}", name="{NAME}"'


def dashboard_queries() -> dict[str, str]:
    """Every query of the dashboard by panel and letter, with Grafana's variables filled in."""
    queries = {}
    for panel in json.loads((DASHBOARDS / "conch.json").read_text())["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for variable, value in VARIABLES.items():
                expression = expression.replace(variable, value)
            queries[f"{panel['title']} {target['refId']}"] = expression
    return queries


def alerts() -> dict[str, str]:
    """The expression of every alert."""
    return {
        rule["alert"]: rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    }


DECIDED: Final = ScalingView(
    desired=4,
    reason=ScalingReason.SURGE,
    message="more comes than is carried",
    demand=42.0,
    capacity_per_replica=12.5,
    late_percent=3.0,
    cold_start_seconds=31.0,
)


def operator_exposition(phase: RolloutPhase = RolloutPhase.SHIFTING) -> bytes:
    """What a leader tells that knows one model, which is autoscaled and in a rollout."""
    view = ClusterView(
        cast(KubeClient, None), on_change=lambda _: None, namespace="conch-system", gateway_ports=range(1, 9)
    )
    model = model_in_rollout(phase=phase)
    model["spec"]["autoscaling"] = {"maxReplicas": 8, "objective": {"latencyMs": 200}}
    view.put_model_deployment(model)
    of_models = CollectorRegistry()
    of_models.register(RolloutMetrics(view))
    of_models.register(ScalingMetrics(view, lambda _: DECIDED))
    metrics.LEADING.set(1)
    try:
        return generate_latest(REGISTRY) + generate_latest(of_models)
    finally:
        metrics.LEADING.set(0)


def certificate_exposition() -> bytes:
    """What a gateway tells of the certificate that it serves."""
    registry = CollectorRegistry()
    of_certificate = CertificateMetrics(registry)
    of_certificate.tell_usable(True)
    of_certificate.tell_days_left(90)
    return generate_latest(registry)


class Prometheus:
    """A running one; questions to it are answered as its HTTP API does."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._url = f"http://127.0.0.1:{port}"

    async def is_ready(self) -> bool:
        """Whether it answers questions; it listens before."""
        async with self._session.get(f"{self._url}/-/ready") as response:
            return response.status == 200

    async def get(self, path: str, **parameters: str) -> Any:
        async with self._session.get(f"{self._url}/api/v1/{path}", params=parameters) as response:
            answer = await response.json()
        assert answer["status"] == "success", answer
        return answer["data"]

    async def values(self, query: str) -> list[tuple[dict[str, str], float]]:
        """The present answer to a query that gives an instant vector."""
        result = (await self.get("query", query=query))["result"]
        return [(sample["metric"], float(sample["value"][1])) for sample in result]

    async def value(self, query: str, **labels: str) -> float:
        """Of the one sample that bears these labels."""

        async def the_one() -> list[float] | None:
            # None at all after a scrape that came late.
            found = [value for told, value in await self.values(query) if labels.items() <= told.items()]
            return found if len(found) == 1 else None

        return (await until(query, the_one))[0]

    async def selectors(self, query: str) -> list[tuple[str, frozenset[str]]]:
        """Every metric that a query names, and the labels that it selects by."""
        return list(_selectors(await self.get("parse_query", query=query)))


def _selectors(node: Any) -> Iterator[tuple[str, frozenset[str]]]:
    if isinstance(node, dict):
        if node.get("type") in ("vectorSelector", "matrixSelector"):
            labels = frozenset(matcher["name"] for matcher in node["matchers"]) - {"__name__"}
            yield node["name"], labels
        for child in node.values():
            yield from _selectors(child)
    elif isinstance(node, list):
        for child in node:
            yield from _selectors(child)


@asynccontextmanager
async def _targets() -> AsyncIterator[Site]:
    started = time.monotonic()
    # Counters as they are after an hour: the first ones must not be taken for all there is.
    told_by_operator = operator_exposition()

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/gateway"):
            body = exposition(gateway_report(3600 + int(time.monotonic() - started)))
        else:
            body = told_by_operator
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4"})

    async with serving() as site:
        site.handler = answer
        yield site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def prometheus(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Prometheus]:
    """One for all tests: it takes 5 s to look at its targets."""
    folder = tmp_path_factory.mktemp("prometheus")
    program = binaries.ensure("prometheus") / "prometheus"
    port = free_port()
    async with _targets() as site:
        # Two that tell of the same object, as for a moment when the leader changes: no figure may be told twice.
        paths = ["/operator-0", "/operator-1", *(f"/gateway-{number}" for number in range(GATEWAYS))]
        config = {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [
                {
                    "job_name": path[1:],
                    "honor_labels": True,
                    "metrics_path": path,
                    "static_configs": [{"targets": [f"127.0.0.1:{site.port}"], "labels": {"pod": path[1:]}}],
                }
                for path in paths
            ],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        process = Process(folder / "prometheus.log", address="127.0.0.1", port=port)
        command = [
            str(program),
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        async with aiohttp.ClientSession() as session:
            try:
                process.start([*command, f"--storage.tsdb.path={folder / 'tsdb'}"], {})
                running = Prometheus(session, port)

                await until("Prometheus", running.is_ready)

                async def scraped() -> bool:
                    query = (
                        f"count(rate(conch_gateway_requests_total{{{OF_ONE_MODEL}}}[10s]) > 0) == {GATEWAYS}"
                        " and on () count(count_over_time(conch_leading[10s]) > 3) == 2"
                    )
                    return bool(await running.values(query))

                await until("a few scrapes", scraped)
                yield running
            finally:
                process.stop()


def _promtool(*arguments: str) -> None:
    program = binaries.ensure("promtool") / "promtool"
    ran = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_prometheus_takes_the_rules() -> None:
    _promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))


def test_alerts_tell_what_somebody_must_know_and_nothing_else(tmp_path: Path) -> None:
    cases = yaml.safe_load(CASES.read_text())
    tried = {name for name in alerts() if name in CASES.read_text()}
    assert tried == set(alerts()), "each alert has its case"
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump({**cases, "rule_files": [str(RULES)]}))
    _promtool("test", "rules", str(tmp_path / "cases.yaml"))


@one_loop
async def test_every_query_of_the_dashboard_returns_data(prometheus: Prometheus) -> None:
    queries = dashboard_queries()
    assert len(queries) >= 20
    for title, query in queries.items():
        found = await prometheus.values(query)
        assert any(math.isfinite(value) for _, value in found), f"{title}: {query} gives {found}"


@one_loop
async def test_all_that_is_asked_for_is_told_under_that_name_and_with_these_labels(prometheus: Prometheus) -> None:
    operator = (operator_exposition(), operator_exposition(RolloutPhase.DONE))
    text = b"".join((*operator, exposition(gateway_report(60)), certificate_exposition()))
    told: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text.decode()):
        # A counter whose labels are only known with its first event has a family, and no samples yet.
        told.setdefault(f"{family.name}_total" if family.type == "counter" else family.name, set())
        for sample in family.samples:
            told.setdefault(sample.name, set()).update(sample.labels)
    told["conch_gateway_polls_total"] |= set(metrics.GATEWAY_POLLS._labelnames)
    for title, query in {**dashboard_queries(), **alerts()}.items():
        selectors = await prometheus.selectors(query)
        assert selectors, title
        for metric, labels in selectors:
            assert metric in told, f"{title}: {metric}"
            assert labels <= told[metric], f"{title}: {metric} has no {labels - told[metric]}"


@one_loop
async def test_figures_are_those_of_all_gateways_by_revision(prometheus: Prometheus) -> None:
    queries = dashboard_queries()
    stable = {"workload": STABLE, "revision": "aaaa000007", "version": "7"}
    candidate = {"workload": CANDIDATE, "revision": "bbbb000008", "version": "8"}
    # In one query, for what was scraped between two is not the same.
    sent = f'sum(rate(conch_gateway_workload_requests_total{{workload="{STABLE}"}}[10s]))'
    shares = f"({queries['Requests by revision A']}) / scalar({sent})"
    assert await prometheus.value(shares, **stable) == pytest.approx(1)
    assert await prometheus.value(shares, **candidate) == pytest.approx(1 / 3)
    assert await prometheus.value(queries["Share of failures by revision A"], **candidate) == pytest.approx(
        0.1, rel=0.01
    )
    assert await prometheus.value(queries["Share of failures by revision A"], **stable) == 0
    # Of ten requests six take up to 6 ms, three up to 8, one up to 13; Prometheus is shown the bounds 5, 10 and 25.
    assert 0.005 < await prometheus.value(queries["Latency p50 by revision A"], **candidate) < 0.010
    assert 0.010 < await prometheus.value(queries["Latency p95 by revision A"], **candidate) < 0.025
    assert await prometheus.value(queries["Held requests A"]) == GATEWAYS
    assert await prometheus.value(queries["Share of the requests by revision A"], **candidate) == 25
    assert await prometheus.value(queries["Checks now C"], check="latency absolute (2)") == 500


@one_loop
async def test_a_load_is_shown_beside_what_the_ready_replicas_carry(prometheus: Prometheus) -> None:
    queries = dashboard_queries()
    assert await prometheus.value(queries["Load and what is carried A"]) == 42
    assert await prometheus.value(queries["Load and what is carried B"]) == 3 * 12.5
    assert await prometheus.value(queries["Late requests A"]) == pytest.approx(0.03)
    assert await prometheus.value(queries["Decided A"], reason="Surge") == 1
