"""What Envoy itself answers, in the shape of Triton's own errors, over HTTP and gRPC."""

from typing import Any, Final

from conch.gateway.envoy import external_authorization
from conch.gateway.envoy.admission import (
    NO_KEY,
    NOT_THIS_NAMESPACE,
    Admission,
    is_of_another_namespace,
)
from conch.gateway.envoy.hold_refusals import no_answer, refusal_mapper, status_is
from conch.gateway.envoy.restricted_apis import REFUSAL, is_restricted

RETRY_AFTER_SECONDS: Final = 1
_TOO_MANY: Final = "too many requests are in flight for this model; try again later"
_NO_SERVER: Final = "no server of this model is ready; try again later"
_RESOURCE_EXHAUSTED: Final = "8"
_DEADLINE_EXCEEDED: Final = "4"
_UNAVAILABLE: Final = "14"
_IS_GRPC: Final = {
    "header_filter": {
        "header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}},
    }
}


def local_replies(admission: Admission) -> dict[str, Any]:
    """A `local_reply_config`. The first mapper that fits is used.

    A request that lost its connection may bear the flag of an overflow as well, when the budget of retries was used up;
    it was not refused for want of room, so it comes before.
    """
    plain = {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"}}
    json_error = {"json_format": {"error": "%LOCAL_REPLY_BODY%"}}

    def pair(
        filter_: dict[str, Any],
        *,
        body: str | None = None,
        status_code: int | None = None,
        grpc_status: str | None = None,
        retry: bool = False,
        headers: tuple[dict[str, Any], ...] = (),
    ) -> list[dict[str, Any]]:
        common: dict[str, Any] = {} if body is None else {"body": {"inline_string": body}}
        all_headers = [*headers, *([_header("retry-after", str(RETRY_AFTER_SECONDS))] if retry else [])]
        grpc_headers = [*all_headers, *([_header("grpc-status", grpc_status)] if grpc_status else [])]
        with_code = {} if status_code is None else {"status_code": status_code}
        return [
            {
                "filter": {"and_filter": {"filters": [filter_, _IS_GRPC]}},
                "headers_to_add": grpc_headers,
                "body_format_override": plain,
                **common,
            },
            {
                "filter": filter_,
                "headers_to_add": all_headers,
                "body_format_override": json_error,
                **common,
                **with_code,
            },
        ]

    of_authorization = [
        *pair(
            external_authorization.is_no_answer(),
            body=external_authorization.NO_ANSWER,
            status_code=503,
            grpc_status=_UNAVAILABLE,
            retry=True,
        ),
        *pair(external_authorization.is_refusal()),
    ]
    of_keys = [
        *pair(status_is(401), body=NO_KEY, headers=(_header("www-authenticate", "Bearer"),)),
        *pair(is_of_another_namespace(), body=NOT_THIS_NAMESPACE),
    ]
    return {
        "mappers": [
            *(of_authorization if admission.authorization else []),
            *pair(is_restricted(), body=REFUSAL),
            *(of_keys if admission.api_keys else []),
            *pair(_flag("UF", "UC", "UR", "LR")),
            *pair(_flag("UO"), body=_TOO_MANY, status_code=429, grpc_status=_RESOURCE_EXHAUSTED, retry=True),
            *pair(_flag("UH"), body=_NO_SERVER, retry=True),
            *pair(no_answer(), body=_NO_SERVER, retry=True),
            *pair(_flag("UT", "DT"), grpc_status=_DEADLINE_EXCEEDED),
            {"filter": _IS_GRPC, "body_format_override": plain},
            refusal_mapper(),
        ],
        "body_format": json_error,
    }


def _flag(*flags: str) -> dict[str, Any]:
    return {"response_flag_filter": {"flags": list(flags)}}


def _header(key: str, value: str) -> dict[str, Any]:
    return {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
