"""Everything in a graph, however deep: for what has to be said of each tensor or dimension, wherever it is."""

import functools
from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message


def messages(message: Message) -> Iterator[Message]:
    """The message and every one in it, down to the subgraphs of If and Loop and the bodies of functions."""
    yield message
    for name in _nested(message.DESCRIPTOR):
        value = getattr(message, name)
        if not isinstance(value, Message):
            for part in value:
                yield from messages(part)
        elif message.HasField(name):
            yield from messages(value)


@functools.cache
def _nested(kind: Descriptor) -> tuple[str, ...]:
    """The fields that hold messages: asked of the format, so that none is missed, nor the weights' bytes copied."""
    return tuple(field.name for field in kind.fields if field.message_type is not None)
