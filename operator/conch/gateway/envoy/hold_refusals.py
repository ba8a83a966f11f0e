"""How the sidecar's refusals reach clients as 503.

Envoy takes a 5xx of whom it asks (ext_authz) for a fault of the asked one, and answers with `status_on_error` and
nothing of what was said: no words, no Retry-After (tried on 1.40). So the sidecar says UNAVAILABLE_STATUS, and Envoy
makes 503 of it. Over gRPC nothing needs to be made: there the sidecar's own `grpc-status` counts.

`local_replies.py` puts `refusal_mapper()` behind all its other mappers of local replies, also behind the one for gRPC.
"""

from typing import Any, Final

UNAVAILABLE_STATUS: Final = 424
"""Inside of a gateway only: clients see 503. No other local reply has it."""


def status_is(status: int) -> dict[str, Any]:
    """A filter of replies with this status."""
    is_it = {"comparison": {"op": "EQ", "value": {"default_value": status, "runtime_key": "conch.unused"}}}
    return {"status_code_filter": is_it}


def _status_of_hold(status: int) -> dict[str, Any]:
    """A filter of replies by which the hold ended a request."""
    return {"and_filter": {"filters": [{"response_flag_filter": {"flags": ["UAEX"]}}, status_is(status)]}}


def no_answer() -> dict[str, Any]:
    """A filter of replies for want of a sidecar that answers: `status_on_error`."""
    return _status_of_hold(503)


def refusal_mapper() -> dict[str, Any]:
    """A mapper of `local_reply_config`."""
    return {
        "filter": _status_of_hold(UNAVAILABLE_STATUS),
        "status_code": 503,
        "body_format_override": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}},
    }
