"""How many pods each of two revisions is to have, and how the traffic is split, on the way to a share of the traffic.

One function per strategy. Each returns the next safe move from what is there, is called again and again, and asks for
nothing more once the goal is reached. What all of them keep to:

* A revision gets traffic only for pods that are ready, and the candidate's are verified.
* What the stable revision gets back, it gets no faster than its ready pods can carry it.
* Who needs a GPU that another pod has waits until that pod is really gone.
"""

from dataclasses import dataclass

from conch.api.rollout import Strategy


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The pods that there are of the two revisions."""

    stable_ready: int
    stable_left: int
    """All that still have their resources, those that are about to end included."""
    candidate_ready: int
    """Verified ones."""
    candidate_left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """What the two revisions are to have."""

    stable: int
    """Replicas."""
    candidate: int
    """Replicas."""
    weight: int
    """Percent of the traffic that the candidate gets."""


def next_split(strategy: Strategy, goal: int, replicas: int, fleet: Fleet, now: Split) -> Split:
    """The next move towards `goal` percent for the candidate, of an object that is to have `replicas` pods.

    `now` is what was asked for last; 0 as the goal takes everything back.
    """
    # A rollout's strategy is never Auto: that is one of these from its beginning.
    if strategy is Strategy.REPLACE:
        return _replace(goal, replicas, fleet, now)
    if strategy is Strategy.IN_PLACE:
        return _in_place(goal, replicas, fleet, now)
    if strategy is Strategy.RECREATE:
        return _recreate(goal, replicas, fleet, now)
    return _surge(goal, replicas, fleet, now)


def pods_for(weight: int, replicas: int) -> int:
    """How many of the pods a share of the traffic needs; one at least.

    >>> [pods_for(weight, 4) for weight in (1, 25, 26, 100)]
    [1, 1, 2, 4]
    """
    return max(1, -(-weight * replicas // 100))


def is_reached(strategy: Strategy, goal: int, replicas: int, split: Split, fleet: Fleet) -> bool:
    """Whether the candidate has the pods and the traffic that `goal` percent, not 0, stand for."""
    needed = replicas if strategy is Strategy.RECREATE else pods_for(goal, replicas)
    if split.candidate < needed or fleet.candidate_ready < min(needed, split.candidate):
        return False
    return split.weight == 100 if goal == 100 or strategy is Strategy.RECREATE else split.weight > 0


def _surge(goal: int, replicas: int, fleet: Fleet, now: Split) -> Split:
    if goal == 0:
        return Split(stable=replicas, candidate=now.candidate, weight=_given_back(replicas, fleet, now))
    needed = pods_for(goal, replicas)
    enough = fleet.candidate_ready >= needed
    # What some of its pods cannot carry, the old ones can: they are still there.
    carried = min(100, 100 * fleet.candidate_ready // replicas) if fleet.stable_ready else 100
    return Split(stable=replicas, candidate=needed, weight=goal if enough else min(now.weight, goal, carried))


def _given_back(replicas: int, fleet: Fleet, now: Split) -> int:
    """What the candidate keeps while the stable revision has not enough ready pods for all of the traffic."""
    carried = min(100, 100 * fleet.stable_ready // max(1, replicas))
    # Nobody carries it better than a candidate that has pods; without any there is nothing to keep.
    return min(now.weight, 100 - carried) if fleet.candidate_ready else 0


def _replace(goal: int, replicas: int, fleet: Fleet, now: Split) -> Split:
    wanted = pods_for(goal, replicas) if goal else 0
    stable, candidate = now.stable, now.candidate
    if candidate + stable > replicas:
        stable, candidate = _fewer(wanted, replicas, fleet, now)
    elif candidate < wanted:
        if candidate + stable >= replicas:
            # The next makes room only once the one before is replaced.
            stable -= 1 if fleet.candidate_ready >= candidate else 0
        elif fleet.stable_left <= stable:
            candidate += 1
    elif candidate > wanted:
        # Pods that carry nothing go first and at once.
        idle = max(0, candidate - fleet.candidate_ready)
        if idle:
            candidate = max(wanted, candidate - idle)
        elif candidate + stable >= replicas:
            candidate -= 1 if fleet.stable_ready >= stable else 0
        elif fleet.candidate_left <= candidate:
            stable += 1
    elif (
        candidate + stable < replicas
        and fleet.candidate_left <= candidate
        and (
            # An old pod that does not end must not keep the others from coming back.
            goal == 0 or fleet.stable_left <= stable
        )
    ):
        stable += 1
    weight = _by_pods(stable, candidate, fleet, now)
    # On the way back it never gets more than it had, whatever becomes of the others.
    return Split(stable=stable, candidate=candidate, weight=weight if goal else min(weight, now.weight))


def _in_place(goal: int, replicas: int, fleet: Fleet, now: Split) -> Split:
    """One pod at a time changes from one revision to the other; each has those that the other has not."""
    wanted = pods_for(goal, replicas) if goal else 0
    candidate = min(now.candidate, replicas)
    if now.stable + now.candidate > replicas:
        _, candidate = _fewer(wanted, replicas, fleet, now)
    elif candidate < wanted:
        # Those that fewer replicas do without go first: none of them is to be taken for one that serves.
        settled = fleet.stable_left + fleet.candidate_left <= replicas
        candidate += 1 if settled and fleet.candidate_ready >= candidate else 0
    elif candidate > wanted:
        # Pods that carry nothing change back first and at once.
        idle = max(0, candidate - fleet.candidate_ready)
        if idle:
            candidate = max(wanted, candidate - idle)
        else:
            candidate -= 1 if fleet.stable_ready >= replicas - candidate else 0
    stable = replicas - candidate
    weight = _by_pods(stable, candidate, fleet, now)
    return Split(stable=stable, candidate=candidate, weight=weight if goal else min(weight, now.weight))


def _fewer(wanted: int, replicas: int, fleet: Fleet, now: Split) -> tuple[int, int]:
    """Where fewer are asked for than when it began: what does not serve goes first, then what is to go anyway."""
    surplus = now.stable + now.candidate - replicas
    stable, candidate = now.stable, now.candidate
    taken = min(surplus, max(0, candidate - fleet.candidate_ready))
    candidate, surplus = candidate - taken, surplus - taken
    taken = min(surplus, max(0, stable - fleet.stable_ready))
    stable, surplus = stable - taken, surplus - taken
    taken = min(surplus, max(0, candidate - wanted))
    candidate, surplus = candidate - taken, surplus - taken
    taken = min(surplus, stable)
    return stable - taken, candidate - (surplus - taken)


def _by_pods(stable: int, candidate: int, fleet: Fleet, now: Split) -> int:
    """In proportion: each pod gets as much as any other; where neither has any, nobody would carry it better."""
    stable, candidate = min(stable, fleet.stable_ready), min(candidate, fleet.candidate_ready)
    return 100 * candidate // (stable + candidate) if stable or candidate else now.weight


def _recreate(goal: int, replicas: int, fleet: Fleet, now: Split) -> Split:
    if goal:
        room = fleet.stable_left == 0
        candidate = replicas if room else now.candidate
        return Split(stable=0, candidate=candidate, weight=100 if fleet.candidate_ready else now.weight)
    room = fleet.candidate_left == 0
    weight = 0 if fleet.stable_ready or room else now.weight
    return Split(stable=replicas if room else now.stable, candidate=0, weight=weight)
