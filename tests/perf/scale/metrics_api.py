"""An adapter for custom.metrics.k8s.io, as a HorizontalPodAutoscaler asks it for what its pods do."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web

from conch.simulate.rules.hpa import quantity
from tests.cluster.apiserver import ApiServer
from tests.cluster.ports import free_port

Measure = Callable[[str, str], Sequence[tuple[str, float]]]
"""By label selector and metric: pods, and what each of them does."""

_VERSION: Final = "v1beta2"
_GROUP: Final = "custom.metrics.k8s.io"
_ROOT: Final = f"/apis/{_GROUP}/{_VERSION}"
_SERVICE: Final = "metrics"
_NAMESPACE: Final = "kube-system"


@asynccontextmanager
async def metrics_api(api: ApiServer, measure: Measure, *, metrics: Sequence[str]) -> AsyncIterator[None]:
    """Serve it on loopback, behind the API server's aggregation layer, where controllers look for it."""
    port = free_port()
    pair = api.authority.issue("metrics", "metrics", hosts={f"{_SERVICE}.{_NAMESPACE}.svc"})
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    application = web.Application()
    application.add_routes(
        [
            web.get(_ROOT, lambda _: _resources(metrics)),
            web.get(
                f"{_ROOT}/namespaces/{{namespace}}/pods/{{name}}/{{metric}}", lambda asked: _values(asked, measure)
            ),
        ]
    )
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
        authority = base64.b64encode(api.authority.pair.certificate.read_bytes()).decode()
        api.kubectl("create", "-f", "-", input=json.dumps(_registration(port, authority)))
        yield
    finally:
        await runner.cleanup()


def is_available(api: ApiServer) -> bool:
    """Whether the API server passes questions on to it."""
    conditions = api.get("apiservice", f"{_VERSION}.{_GROUP}").get("status", {}).get("conditions", ())
    return any(each["type"] == "Available" and each["status"] == "True" for each in conditions)


def _registration(port: int, authority: str) -> dict[str, Any]:
    # By a name outside the cluster: nothing here would carry traffic to a cluster IP.
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": _SERVICE, "namespace": _NAMESPACE},
        "spec": {"type": "ExternalName", "externalName": "127.0.0.1"},
    }
    registered = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": f"{_VERSION}.{_GROUP}"},
        "spec": {
            "group": _GROUP,
            "version": _VERSION,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "caBundle": authority,
            "service": {"name": _SERVICE, "namespace": _NAMESPACE, "port": port},
        },
    }
    return {"apiVersion": "v1", "kind": "List", "items": [service, registered]}


async def _resources(metrics: Sequence[str]) -> web.Response:
    resources = [
        {"name": f"pods/{metric}", "singularName": "", "namespaced": True, "kind": "MetricValueList", "verbs": ["get"]}
        for metric in metrics
    ]
    return web.json_response(
        {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{_GROUP}/{_VERSION}",
            "resources": resources,
        }
    )


async def _values(request: web.Request, measure: Measure) -> web.Response:
    namespace, metric = request.match_info["namespace"], request.match_info["metric"]
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    items = [
        {
            "describedObject": {"kind": "Pod", "namespace": namespace, "name": pod, "apiVersion": "v1"},
            "metric": {"name": metric},
            "timestamp": now,
            "value": f"{quantity(value)}m",
        }
        for pod, value in measure(request.query["labelSelector"], metric)
    ]
    return web.json_response(
        {"kind": "MetricValueList", "apiVersion": f"{_GROUP}/{_VERSION}", "metadata": {}, "items": items}
    )
