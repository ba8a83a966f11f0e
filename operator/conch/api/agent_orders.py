"""What the operator tells an agent at once, which the kubelet brings with the assignment later."""

from typing import Annotated

from pydantic import Field

from conch.api.assignment import Pin
from conch.api.types import ApiModel, ShortText


class PinOrder(ApiModel, extra="ignore"):
    """How the operator tells an agent a pin, sooner than the kubelet brings the assignment with it."""

    revision: ShortText
    pin: Pin
    code: Annotated[str, Field(max_length=64)]
    """See `names.pin_code`."""


class TurnOrder(ApiModel, extra="ignore"):
    """How the operator tells a pod which of a change's two revisions it is to serve, sooner than the kubelet does.

    `PUT /turn`. Taken only by an agent whose assignment brings this change, and that knows no later word of it.
    """

    change: ShortText
    """`Change.id`."""
    turn: Annotated[int, Field(ge=0, le=2**31 - 1)]
    """`Change.turn`."""
    revision: ShortText
    """The one that this pod is to serve: the assignment's own, or the change's."""
    code: Annotated[str, Field(max_length=64)]
    """See `names.turn_code`."""
