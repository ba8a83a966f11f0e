"""What the API server checks of a source: what `source.parse_source_uri` refuses, in its words.

On the model that holds the source and not at the URI itself, because the API server's answer would repeat it.
"""

from typing import Final

from conch.api import source
from conch.api.cel import Rule

_URI: Final = "self.source.uri"


def _has_scheme(*schemes: str) -> str:
    return "({})".format(" || ".join(f"{_URI}.startsWith('{scheme}://')" for scheme in schemes))


SOURCE_RULES: Final = (
    Rule(rule=_has_scheme(*source.URI_PATTERNS), message=f"source.uri: {source.NO_SCHEME}"),
    Rule(rule=f"!{_URI}.matches(r'{source.CONTROL_PATTERN}')", message=f"source.uri: {source.CONTROL}"),
    Rule(rule=f"!{_URI}.matches('^{source.CREDENTIALS_PATTERN}')", message=f"source.uri: {source.CREDENTIALS}"),
    *(
        Rule(
            rule=f"!{_has_scheme(scheme)} || {_URI}.matches(r'^{pattern}$')",
            message=f"source.uri: {source.wrong_form(scheme)}",
        )
        for scheme, pattern in source.URI_PATTERNS.items()
    ),
    Rule(
        rule=f"!has(self.source.endpoint) || {_has_scheme(*source.WITH_ENDPOINT)}",
        message=f"source.{source.ENDPOINT_ELSEWHERE}",
    ),
    Rule(
        rule=f"!has(self.source.endpoint) || self.source.endpoint.matches(r'^{source.ENDPOINT_PATTERN}$')",
        message=f"source.{source.ENDPOINT_FORM}",
    ),
    Rule(
        rule=f"!has(self.source.region) || {_has_scheme('s3')}",
        message=f"source.{source.REGION_ELSEWHERE}",
    ),
    Rule(
        rule=f"self.source.pathStyle || {_has_scheme('s3')}",
        message=f"source.{source.PATH_STYLE_ELSEWHERE}",
    ),
)
"""Over a model: `model`, or one of `models`."""
