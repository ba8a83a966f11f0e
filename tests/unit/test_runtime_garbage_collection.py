"""Full collections stay short: what survived one is set aside, and looked at again only now and then."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from conch.runtime.garbage_collection import ShortCollections


class Node:
    """Something that can be in a cycle."""

    def __init__(self) -> None:
        self.self: Node | None = self


class Clock:
    """Seconds that pass when the test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Iterator[Clock]:
    clock = Clock()
    collections = ShortCollections(clock=clock)
    collections.install()
    yield clock
    gc.callbacks.remove(collections)
    gc.unfreeze()


def test_a_full_collection_leaves_nothing_for_the_next_to_look_at(clock: Clock) -> None:
    del clock
    kept = [Node() for _ in range(1000)]
    gc.collect()
    assert len(gc.get_objects(generation=2)) < len(kept)


def test_a_cycle_that_died_since_the_last_full_collection_is_collected_by_the_next(clock: Clock) -> None:
    del clock
    gc.collect()
    gone = weakref.ref(Node())
    gc.collect()
    assert gone() is None


def test_a_cycle_that_died_after_it_was_set_aside_is_collected_in_the_end(clock: Clock) -> None:
    node = Node()
    gone = weakref.ref(node)
    gc.collect()
    del node
    gc.collect()
    assert gone() is not None
    clock.now = 601
    gc.collect()
    assert gone() is None
