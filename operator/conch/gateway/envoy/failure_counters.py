"""Counts what clients were answered badly, by cluster and cause, exactly: with access loggers that write counters.

A cluster's own statistics count attempts, and what Envoy answers itself looks like a server's 503 there. An access
logger sees each request once, with its last answer. `listener.py` puts `failure_loggers()` into every connection
manager, and the bootstrap lets statistics through that begin with `STAT_PREFIX`.

Names in Envoy: `conch.failed.<counter>.cluster.<cluster>`.
"""

from enum import StrEnum
from typing import Any, Final

from conch.gateway.envoy.naming import ClusterId, parse_cluster

STAT_PREFIX: Final = "conch.failed"
STATS: Final = r"^conch\.failed\."
"""Regular expression for all of them."""

_LOGGER: Final = "type.googleapis.com/envoy.extensions.access_loggers.stats.v3.Config"
_SEPARATOR: Final = ".cluster."


class FailureCounter(StrEnum):
    """What is counted."""

    BAD = "bad"
    """Answered with 5xx or a gRPC status of its kind, whoever answered."""
    BAD_OF_ENVOY = "bad_of_envoy"
    """Those of BAD that did not come from a server; the difference are the servers' own."""
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    """No connection, or lost while the request was executed, also after the answer had begun."""
    UNAVAILABLE = "unavailable"


_SERVER_ERROR: Final = {
    "status_code_filter": {"comparison": {"op": "GE", "value": {"default_value": 500, "runtime_key": "conch.unused"}}}
}
# Not what a client caused itself (INVALID_ARGUMENT, NOT_FOUND, UNIMPLEMENTED), and not a refusal (RESOURCE_EXHAUSTED).
_BAD_STATUSES: Final = ("UNKNOWN", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
# Only of gRPC: Envoy takes any other answer that has no gRPC status for one with UNKNOWN.
_BAD_OVER_GRPC: Final = {
    "and_filter": {
        "filters": [
            {"header_filter": {"header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}}}},
            {"grpc_status_filter": {"statuses": list(_BAD_STATUSES)}},
        ]
    }
}
_BAD: Final = {"or_filter": {"filters": [_SERVER_ERROR, _BAD_OVER_GRPC]}}
# The request's time is over (UT), its whole duration (DT), nothing moved on it (SI).
_TIMEOUT: Final = ("UT", "DT", "SI")
# No connection (UF), ended by the server (UC), reset from there (UR) or here (LR), nonsense from there (UPE).
_CONNECTION: Final = ("UF", "UC", "UR", "LR", "UPE")
# No healthy server (UH), no cluster (NC).
_UNAVAILABLE: Final = ("UH", "NC")
# Refused by the sidecar (UAEX), the limit (UO), want of a route (NR) or overload (OM, DO); the client went (DC) or
# spoke nonsense (DPE).
_OTHERS: Final = ("UAEX", "UO", "NR", "DC", "DPE", "OM", "DO")


def _flags(*flags: str) -> dict[str, Any]:
    return {"response_flag_filter": {"flags": list(flags)}}


_FILTERS: Final[dict[FailureCounter, dict[str, Any]]] = {
    FailureCounter.BAD: _BAD,
    # Not just any flag: URX (no retry is left) is on a server's own answer as well.
    FailureCounter.BAD_OF_ENVOY: {
        "and_filter": {"filters": [_BAD, _flags(*_TIMEOUT, *_CONNECTION, *_UNAVAILABLE, *_OTHERS)]}
    },
    FailureCounter.TIMEOUT: _flags(*_TIMEOUT),
    FailureCounter.CONNECTION: _flags(*_CONNECTION),
    FailureCounter.UNAVAILABLE: _flags(*_UNAVAILABLE),
}


def failure_loggers() -> list[dict[str, Any]]:
    """The access loggers of a connection manager. They cost nothing for a request that is answered well."""
    return [_logger(counter, only) for counter, only in _FILTERS.items()]


def _logger(counter: FailureCounter, only: dict[str, Any]) -> dict[str, Any]:
    stat = {"name": counter.value, "tags": [{"name": "cluster", "value_format": "%UPSTREAM_CLUSTER_RAW%"}]}
    return {
        "name": "envoy.access_loggers.stats",
        "filter": only,
        "typed_config": {
            "@type": _LOGGER,
            "stat_prefix": STAT_PREFIX,
            "counters": [{"stat": stat, "value_fixed": 1}],
        },
    }


def parse_failure_stat(stat: str) -> tuple[ClusterId, FailureCounter] | None:
    """Cluster and counter of a statistic's name; None for what is not one of these, or of no workload's cluster."""
    head, separator, name = stat.partition(_SEPARATOR)
    prefix, _, counter = head.rpartition(".")
    cluster = parse_cluster(name)
    if not separator or prefix != STAT_PREFIX or counter not in set(FailureCounter) or cluster is None:
        return None
    return cluster, FailureCounter(counter)
