"""What `conch promote|abort|retry|rollback|pause|resume` ask for: an annotation that the operator reads."""

import json
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field, ValidationError

from conch.api.types import ApiModel, ShortText

_COMMAND_MOST: Final = 2048
"""Characters; anybody who may edit an object may write what he likes there."""


class Verb(StrEnum):
    """What can be asked for."""

    PROMOTE = "promote"
    """Go on to the next step, whatever this one waits for."""
    ABORT = "abort"
    """Back to the stable revision."""
    RETRY = "retry"
    """Try a revision again that was rolled back."""
    ROLLBACK = "rollback"
    """To a revision of before, whatever the spec asks for."""
    PAUSE = "pause"
    RESUME = "resume"

    @property
    def needs_spec(self) -> bool:
        """Whether it waits until the object's spec can be read."""
        return self not in (Verb.ABORT, Verb.PAUSE, Verb.RESUME)


class Command(ApiModel):
    """One command. The operator heeds each nonce once."""

    command: Verb
    rollout: Annotated[ShortText, Field(min_length=1, description="Id of the rollout that it is about.")]
    nonce: Annotated[ShortText, Field(min_length=1)]
    revision: Annotated[ShortText | None, Field(description="With rollback: to this one, not to the newest.")] = None
    full: Annotated[bool, Field(description="With promote: all the way, without any further step.")] = False


class UnreadableCommand(ApiModel):
    """In place of an annotation that is no command; its text stands for the nonce."""

    nonce: ShortText
    message: ShortText


def parse_command(annotation: str | None) -> Command | UnreadableCommand | None:
    """The command in an object's annotation, if it has one."""
    if not annotation:
        return None
    if len(annotation) > _COMMAND_MOST:
        return UnreadableCommand(nonce=annotation[:256], message="it is too long")
    try:
        return Command.model_validate(json.loads(annotation))
    except ValidationError as error:
        return UnreadableCommand(nonce=annotation[:256], message=error.errors()[0]["msg"][:256])
    except (ValueError, RecursionError):
        return UnreadableCommand(nonce=annotation[:256], message="it is not JSON")
