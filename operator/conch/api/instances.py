"""`runtime.instances`: how many batches one server executes at the same time."""

from typing import Annotated, Final, Literal

from pydantic import Field, WithJsonSchema

AUTO_INSTANCES: Final = "Auto"
INSTANCES_MOST: Final = 64

InstanceCount = Annotated[
    Annotated[int, Field(ge=1, le=INSTANCES_MOST)] | Literal["Auto"],
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": "^Auto$",
            "maxLength": 4,
            "minimum": 1,
            "maximum": INSTANCES_MOST,
        }
    ),
]
"""A number, or `Auto`."""
