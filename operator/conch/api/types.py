"""The bounded scalar types every API model is made of, and the base class that refuses unknown fields.

Kubernetes' structural schemas reject what is unbounded (CEL cost) and so do we: every string has a length, every number
a range. The types carry their JSON schema with them, so the CRD and the validation cannot disagree.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.alias_generators import to_camel

QUANTITY_PATTERN = r"^([0-9]+m|[0-9]+(\.[0-9]{1,3})?(k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei)?)$"
"""Not finer than milli: the API server would round it, and the object would never look as it was asked for."""


class ApiModel(BaseModel):
    """A node of the API: camelCase on the wire, snake_case in Python, immutable, no unknown fields."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, serialize_by_alias=True
    )

    def to_wire(self) -> dict[str, Any]:
        """The object as it stands in YAML: camelCase keys, absent optionals left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def _as_text(value: int | str) -> str:
    return str(value)


Quantity = Annotated[
    Annotated[int, Field(ge=0, le=2**53)] | Annotated[str, Field(max_length=24, pattern=QUANTITY_PATTERN)],
    AfterValidator(_as_text),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": QUANTITY_PATTERN,
            "maxLength": 24,
            "minimum": 0,
            "maximum": 2**53,
        }
    ),
]
"""A Kubernetes quantity such as `500m`, `2` or `4Gi`; kept as text."""

DnsLabel = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
DnsName = Annotated[
    str,
    Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
]
QualifiedName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=317,
        pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
    ),
]
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")]
Digest = Annotated[str, Field(min_length=71, max_length=71, pattern=r"^sha256:[0-9a-f]{64}$")]
ShortText = Annotated[str, Field(max_length=256)]
MESSAGE_MOST = 2048
Resolved = Annotated[str, Field(max_length=4096)]
"""What a source's name stood for when it was fetched, in the store's words: a commit, a manifest digest, an ETag. Of
several models a JSON object, by name."""
Message = Annotated[str, Field(max_length=MESSAGE_MOST)]
Timestamp = Annotated[str, Field(max_length=32, json_schema_extra={"format": "date-time"})]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]


def bounded(text: str, most: int = MESSAGE_MOST) -> str:
    """Somebody else's words, short enough for a message; a status that is too long is refused as a whole."""
    return text if len(text) <= most else text[: most - 1] + "…"


def timestamp(at: datetime) -> str:
    """A moment as status tells it: in UTC, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
