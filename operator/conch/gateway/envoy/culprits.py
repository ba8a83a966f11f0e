"""Giving Envoy as much of a change as it takes: those at fault stay as they were, everybody else goes on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from conch.gateway.envoy.delivery import NO_WORDS, Delivery
from conch.gateway.envoy.files import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What Envoy does now."""

    resources: dict[str, str]
    refused: dict[str, str]
    """Names of those that it does not want, and its words."""


async def deliver_good_part(
    delivery: Delivery, kind: Kind, *, have: Mapping[str, str], target: Mapping[str, str]
) -> Taken:
    """Deliver `target` but for what Envoy refuses; that stays as in `have`, or goes if it is refused as it was.

    Envoy names those at fault or does not; then they are found by halving what changed.
    """
    changed = {name for name, text in target.items() if have.get(name) != text}
    refusal = await delivery.deliver(kind, target, changed=changed)
    if refusal is None:
        return Taken(resources=dict(target), refused={})
    named = {name: words for name, words in refusal.named.items() if name in target}
    if named:
        rest = _without(target, named, have)
        if await delivery.deliver(kind, rest, changed=set()) is None:
            return Taken(resources=rest, refused=named)
    # With nothing changed it is an Envoy that started anew and no longer takes what the one before did.
    suspects = sorted(changed or target)
    base = _without(target, suspects, have)
    resources, refused = await _halve(delivery, kind, base, suspects, target)
    if refused:
        # The last thing given may be one that was refused.
        await delivery.deliver(kind, resources, changed=set())
    return Taken(resources=resources, refused={name: named.get(name, NO_WORDS) for name in refused})


def _without(target: Mapping[str, str], names: Iterable[str], have: Mapping[str, str]) -> dict[str, str]:
    """`target` with `names` as they were before, or not at all if that is the same."""
    rest = dict(target)
    for name in names:
        before = have.get(name)
        if before is None or before == rest[name]:
            del rest[name]
        else:
            rest[name] = before
    return rest


async def _halve(
    delivery: Delivery, kind: Kind, base: dict[str, str], suspects: list[str], target: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """What Envoy takes of the suspects on top of `base`, and the names of those that it does not."""
    attempt = base | {name: target[name] for name in suspects}
    if await delivery.deliver(kind, attempt, changed=set(suspects)) is None:
        return attempt, []
    if len(suspects) == 1:
        return base, suspects
    middle = len(suspects) // 2
    base, refused_first = await _halve(delivery, kind, base, suspects[:middle], target)
    base, refused_second = await _halve(delivery, kind, base, suspects[middle:], target)
    return base, [*refused_first, *refused_second]
