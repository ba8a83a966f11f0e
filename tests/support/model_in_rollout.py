"""A model whose new version has a quarter of the requests: as the API server gives it, and as a gateway reports it."""

from typing import Any, Final

from conch.api import names
from conch.api.gateway_report import FailureClass, GatewayReport, ObjectTraffic, WorkloadTraffic
from conch.api.rollout import RolloutPhase
from conch.core.rollout.phases import UNDER_WAY

NAMESPACE: Final = "team"
NAME: Final = "fraud"
STABLE: Final = "57ab1e00"
CANDIDATE: Final = "ca9d1da7"
RETIRING: Final = "01d01d01"
"""Workloads."""


def model_in_rollout(
    name: str = NAME, *, phase: RolloutPhase = RolloutPhase.SHIFTING, resource_version: int = 1
) -> dict[str, Any]:
    """Version 8 takes over from 7, and the last pods of an older one are not gone yet."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {
            "namespace": NAMESPACE,
            "name": name,
            "uid": f"uid-of-{name}",
            "resourceVersion": str(resource_version),
        },
        "spec": {"model": {"version": 8, "source": {"uri": "https://models.example.com/fraud/8.onnx"}}},
        "status": {
            "conditions": [
                {
                    "type": "Ready",
                    "status": "False",
                    "reason": "Analysing",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ],
            "replicas": 4,
            "readyReplicas": 3,
            "desiredReplicas": 4,
            "stable": {"revision": "aaaa000007", "version": 7, "workload": STABLE},
            "candidate": {"revision": "bbbb000008", "version": 8, "workload": CANDIDATE},
            "rollout": {
                "id": CANDIDATE,
                "revision": "bbbb000008",
                "fromRevision": "aaaa000007",
                "strategy": "Surge",
                "phase": phase,
                "weight": 25,
                "stableReplicas": 4,
                "candidateReplicas": 1,
                "checks": [
                    {"name": "goldenSet", "verdict": "Pass", "value": 0.0, "limit": 0.0, "samples": 3},
                    {"name": "successRate", "verdict": "Pass", "value": 0.25, "limit": 1.0, "samples": 400},
                    {"name": "latency p95 absolute", "verdict": "Inconclusive", "limit": 250.0},
                    {"name": "latency p95 absolute", "verdict": "Pass", "value": 80.0, "limit": 500.0, "samples": 400},
                ],
                "shadow": {
                    "share": {"percent": 20},
                    "compared": 100,
                    "disagreed": 1,
                    "failed": 2,
                    "skipped": 3,
                    "dropped": 4,
                    "stableP50Ms": 5.5,
                    "stableP90Ms": 9,
                    "candidateP50Ms": 6,
                    "example": "scores: 1 of 10 values differ, by up to 0.5",
                },
                "startedAt": "2026-01-01T00:00:00Z",
                **({} if phase in UNDER_WAY else {"finishedAt": "2026-01-01T01:00:00Z"}),
            },
            "rejected": [{"revision": "cccc000006", "cause": "AnalysisFailed", "at": "2025-12-01T00:00:00Z"}],
            "traffic": [
                {"revision": "aaaa000007", "workload": STABLE, "weight": 75},
                {"revision": "bbbb000008", "workload": CANDIDATE, "weight": 25},
                {"revision": "dddd000005", "workload": RETIRING, "weight": 0},
            ],
            "pods": {"pending": 0, "fetching": 0, "loading": 1, "ready": 1, "failed": 0},
        },
    }


def gateway_report(seconds: int) -> GatewayReport:
    """What a gateway has counted of it after so long: 40 requests per second, of which ten go to the new version."""
    answered = (0, 0, 0, 0, 0, 6, 3, 0, 1)

    def traffic(requests: int, failed: int) -> WorkloadTraffic:
        return WorkloadTraffic(
            in_flight=2,
            arrivals=requests * seconds,
            failures={FailureClass.SERVER: failed * seconds, FailureClass.TIMEOUT: 0},
            latency=tuple(count * requests * seconds // sum(answered) for count in answered),
        )

    return GatewayReport(
        gateway="gateway-1",
        epoch="1",
        version="1",
        objects={
            f"{NAMESPACE}/{NAME}": ObjectTraffic(
                generation="g",
                endpoints=5,
                arrivals=42 * seconds,
                in_flight=4,
                held=1,
                refused=2 * seconds,
                workloads={STABLE: traffic(30, 0), CANDIDATE: traffic(10, 1), RETIRING: traffic(0, 0)},
            )
        },
    )
