"""How many pods each revision gets, and how the traffic is split: every move of every strategy."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.api.rollout import Strategy
from conch.core.rollout.capacity import Fleet, Split, is_reached, next_split, pods_for

SURGE, IN_PLACE, REPLACE, RECREATE = Strategy.SURGE, Strategy.IN_PLACE, Strategy.REPLACE, Strategy.RECREATE


def fleet(stable: str, candidate: str) -> Fleet:
    """Each as ready/left, such as 3/4."""
    (stable_ready, stable_left), (candidate_ready, candidate_left) = (
        [int(number) for number in pods.split("/")] for pods in (stable, candidate)
    )
    return Fleet(
        stable_ready=stable_ready,
        stable_left=stable_left,
        candidate_ready=candidate_ready,
        candidate_left=candidate_left,
    )


def split(told: str) -> Split:
    """As stable+candidate@weight, such as 3+1@25."""
    replicas, weight = told.split("@")
    stable, candidate = replicas.split("+")
    return Split(stable=int(stable), candidate=int(candidate), weight=int(weight))


# Strategy, goal, replicas | stable and candidate pods as ready/left | asked for before | asked for next
MOVES: Final = {
    # InPlace: each pod is of one or of the other.
    "in place: one pod first": (IN_PLACE, 25, 4, "4/4", "0/0", "4+0@0", "3+1@0"),
    "in place: the next only once it is verified": (IN_PLACE, 50, 4, "3/3", "0/1", "3+1@0", "3+1@0"),
    "in place: the share follows the pods": (IN_PLACE, 25, 4, "3/3", "1/1", "3+1@0", "3+1@25"),
    "in place: then the next": (IN_PLACE, 50, 4, "3/3", "1/1", "3+1@25", "2+2@33"),
    "in place: all of it": (IN_PLACE, 100, 2, "0/0", "2/2", "0+2@50", "0+2@100"),
    "in place: the only one changes when it has prepared": (IN_PLACE, 100, 1, "1/1", "0/0", "1+0@0", "0+1@0"),
    "in place: and has all once it is verified": (IN_PLACE, 100, 1, "0/0", "1/1", "0+1@0", "0+1@100"),
    "in place: one is lost, the others carry it": (IN_PLACE, 50, 4, "2/2", "1/2", "2+2@50", "2+2@33"),
    "in place: back, what does not serve first": (IN_PLACE, 0, 4, "2/2", "1/2", "2+2@33", "3+1@33"),
    "in place: back, one after the other": (IN_PLACE, 0, 4, "2/2", "2/2", "2+2@50", "3+1@33"),
    "in place: back, the next once the one before serves": (IN_PLACE, 0, 4, "2/3", "1/1", "3+1@33", "3+1@33"),
    "in place: back, the only one": (IN_PLACE, 0, 1, "0/0", "1/1", "0+1@100", "1+0@100"),
    "in place: back, and it answers as before": (IN_PLACE, 0, 1, "1/1", "0/0", "1+0@100", "1+0@0"),
    "in place: more replicas mid-way": (IN_PLACE, 50, 6, "2/2", "2/2", "2+2@50", "3+3@50"),
    "in place: fewer replicas mid-way": (IN_PLACE, 50, 2, "2/2", "2/2", "2+2@50", "1+1@50"),
    # Surge: new pods beside the old ones, of which it takes none.
    "surge: the pods that a share needs": (SURGE, 25, 4, "4/4", "0/0", "4+0@0", "4+1@0"),
    "surge: a small share needs a pod too": (SURGE, 1, 4, "4/4", "0/0", "4+0@0", "4+1@0"),
    "surge: no traffic before they are verified": (SURGE, 50, 4, "4/4", "1/2", "4+2@0", "4+2@0"),
    "surge: then all of the share at once": (SURGE, 50, 4, "4/4", "2/2", "4+2@0", "4+2@50"),
    "surge: on to the next share, it keeps what it has": (SURGE, 100, 4, "4/4", "2/2", "4+2@50", "4+4@50"),
    "surge: all of it": (SURGE, 100, 4, "4/4", "4/4", "4+4@50", "4+4@100"),
    "surge: one of several is lost, the others carry what they can": (SURGE, 50, 4, "4/4", "1/2", "4+2@50", "4+2@25"),
    "surge: one is lost while the old ones are warm": (SURGE, 100, 4, "4/4", "3/4", "4+4@100", "4+4@75"),
    "surge: one is lost of what a stable pod alone could not carry": (SURGE, 100, 4, "1/4", "3/4", "4+4@100", "4+4@75"),
    "surge: one is lost and no old one is there": (SURGE, 100, 4, "0/4", "3/4", "4+4@100", "4+4@100"),
    "surge: a cap gives nobody more than it has": (SURGE, 100, 4, "4/4", "3/4", "4+4@50", "4+4@50"),
    "surge: a small share on its one pod is not cut": (SURGE, 1, 200, "200/200", "2/2", "200+2@1", "200+2@1"),
    "surge: all of them are lost": (SURGE, 50, 4, "4/4", "0/2", "4+2@50", "4+2@0"),
    "surge: all of them are lost while the old ones are warm": (SURGE, 100, 4, "4/4", "0/4", "4+4@100", "4+4@0"),
    "surge: all pods of both are lost, it makes no difference": (SURGE, 50, 4, "0/4", "0/2", "4+2@50", "4+2@50"),
    "surge: stable pods lost give the candidate no more": (SURGE, 50, 4, "1/4", "2/2", "4+2@50", "4+2@50"),
    "surge: more replicas mid-way, both grow": (SURGE, 50, 8, "4/4", "2/2", "4+2@50", "8+4@25"),
    "surge: more replicas mid-way, and have grown": (SURGE, 50, 8, "4/8", "4/4", "8+4@25", "8+4@50"),
    "surge: fewer replicas mid-way, both shrink": (SURGE, 50, 2, "4/4", "2/2", "4+2@50", "2+1@50"),
    "surge: back at once where the old ones are ready": (SURGE, 0, 4, "4/4", "4/4", "4+4@100", "4+4@0"),
    "surge: back as fast as they can carry it": (SURGE, 0, 4, "3/4", "4/4", "4+4@100", "4+4@25"),
    "surge: back, none of the old ones is ready": (SURGE, 0, 4, "0/4", "4/4", "4+4@100", "4+4@100"),
    "surge: back, a candidate without pods keeps nothing": (SURGE, 0, 4, "1/4", "0/4", "4+4@100", "4+4@0"),
    "surge: back, it never gets more than it has": (SURGE, 0, 4, "1/4", "1/1", "4+1@25", "4+1@25"),
    "surge: back, more replicas are asked for": (SURGE, 0, 8, "4/4", "4/4", "4+4@100", "8+4@50"),
    # Auto is Surge until it finds out otherwise.
    "auto": (Strategy.AUTO, 25, 4, "4/4", "0/0", "4+0@0", "4+1@0"),
    # Replace: one after the other, each gets what another had.
    "replace: an old pod leaves first": (REPLACE, 100, 4, "4/4", "0/0", "4+0@0", "3+0@0"),
    "replace: until it is really gone nothing comes": (REPLACE, 100, 4, "3/4", "0/0", "3+0@0", "3+0@0"),
    "replace: one comes in its place": (REPLACE, 100, 4, "3/3", "0/0", "3+0@0", "3+1@0"),
    "replace: the next only after this one is ready": (REPLACE, 100, 4, "3/3", "0/1", "3+1@0", "3+1@0"),
    "replace: its share is that of a pod, and the next leaves": (REPLACE, 100, 4, "3/3", "1/1", "3+1@0", "2+1@33"),
    "replace: an old pod that is broken takes no other one with it": (REPLACE, 100, 4, "2/3", "0/1", "3+1@0", "3+1@0"),
    "replace: nor does one that is broken before a new one is ready": (
        REPLACE,
        100,
        4,
        "2/3",
        "1/2",
        "2+2@33",
        "2+2@33",
    ),
    "replace: old pods that are broken stop nothing": (REPLACE, 100, 4, "2/3", "1/1", "3+1@25", "2+1@33"),
    "replace: the last": (REPLACE, 100, 4, "0/0", "3/3", "0+3@100", "0+4@100"),
    "replace: a share in pods": (REPLACE, 25, 4, "3/3", "1/1", "3+1@0", "3+1@25"),
    "replace: a small share is a whole pod": (REPLACE, 1, 2, "1/1", "1/1", "1+1@0", "1+1@50"),
    "replace: a candidate pod is lost": (REPLACE, 100, 4, "2/2", "1/2", "2+2@50", "2+2@33"),
    "replace: all candidate pods are lost": (REPLACE, 100, 4, "2/2", "0/2", "2+2@50", "2+2@0"),
    "replace: all pods of both are lost, nobody carries it better": (
        REPLACE,
        100,
        4,
        "0/0",
        "0/4",
        "0+4@100",
        "0+4@100",
    ),
    "replace: stable pods are lost, none is ready": (REPLACE, 100, 4, "0/4", "0/0", "4+0@0", "3+0@0"),
    "replace: more replicas mid-way come as new pods": (REPLACE, 100, 6, "2/2", "2/2", "2+2@50", "2+3@50"),
    "replace: more replicas at a share come as old pods": (REPLACE, 25, 8, "3/3", "2/2", "3+2@40", "4+2@40"),
    "replace: fewer replicas mid-way, the old ones go": (REPLACE, 100, 3, "2/2", "2/2", "2+2@50", "1+2@66"),
    "replace: much fewer, some of the new ones go too": (REPLACE, 100, 1, "2/2", "2/2", "2+2@50", "0+1@100"),
    "replace: fewer, what does not serve yet goes first": (REPLACE, 100, 4, "2/2", "2/6", "2+6@50", "2+2@50"),
    "replace: fewer at a share, the surplus of new ones goes": (REPLACE, 25, 4, "3/3", "2/2", "3+2@40", "3+1@25"),
    "replace: one replica has a gap": (REPLACE, 100, 1, "1/1", "0/0", "1+0@0", "0+0@0"),
    "replace: back, pods that carry nothing go at once": (REPLACE, 0, 4, "2/2", "0/2", "2+2@0", "2+0@0"),
    "replace: back, one that serves makes room": (REPLACE, 0, 4, "2/2", "2/2", "2+2@50", "2+1@33"),
    "replace: back, until it is really gone nothing comes": (REPLACE, 0, 4, "2/2", "1/2", "2+1@33", "2+1@33"),
    "replace: back, an old one comes in its place": (REPLACE, 0, 4, "2/2", "1/1", "2+1@33", "3+1@33"),
    "replace: back, the next only after it is ready": (REPLACE, 0, 4, "2/3", "1/1", "3+1@33", "3+1@33"),
    "replace: back, the last": (REPLACE, 0, 4, "3/3", "0/0", "3+0@0", "4+0@0"),
    "replace: back, more replicas come as old pods": (REPLACE, 0, 6, "2/2", "2/2", "2+2@50", "3+2@50"),
    "replace: back, fewer replicas, the new ones go": (REPLACE, 0, 3, "2/2", "2/2", "2+2@50", "2+1@33"),
    "replace: back, fewer replicas, the only one that serves stays": (
        REPLACE,
        0,
        2,
        "0/2",
        "1/1",
        "2+1@100",
        "1+1@100",
    ),
    "replace: back, the candidate never gets more, whatever is lost": (REPLACE, 0, 4, "0/2", "2/2", "2+2@50", "2+2@50"),
    "replace: back, nor while new ones go before the old are ready": (REPLACE, 0, 4, "1/3", "1/1", "3+1@25", "3+1@25"),
    "replace: back, who has nothing gets nothing": (REPLACE, 0, 4, "0/3", "1/1", "3+1@0", "3+1@0"),
    "replace: back, a stable pod that does not end holds up no other": (REPLACE, 0, 4, "2/3", "0/0", "2+0@0", "3+0@0"),
    "replace: forth, it does": (REPLACE, 25, 4, "2/3", "1/1", "2+1@33", "2+1@33"),
    "replace: back, a candidate pod that does not end does": (REPLACE, 0, 4, "2/2", "0/1", "2+0@0", "2+0@0"),
    # From Surge, which found no room for all of its pods: those that run count among the replicas.
    "hand-over: one ran": (REPLACE, 100, 4, "4/4", "1/1", "4+1@0", "3+1@25"),
    "hand-over: none ran": (REPLACE, 100, 4, "4/4", "0/1", "4+0@0", "3+0@0"),
    "hand-over: enough ran for the share": (REPLACE, 25, 4, "4/4", "1/1", "4+1@25", "3+1@25"),
    # Recreate: nobody has anything at the same time.
    "recreate: the old ones leave": (RECREATE, 100, 2, "2/2", "0/0", "2+0@0", "0+0@0"),
    "recreate: until all are really gone nothing comes": (RECREATE, 100, 2, "0/1", "0/0", "0+0@0", "0+0@0"),
    "recreate: then all come": (RECREATE, 100, 2, "0/0", "0/0", "0+0@0", "0+2@0"),
    "recreate: the first that is ready gets everything": (RECREATE, 100, 2, "0/0", "1/2", "0+2@0", "0+2@100"),
    "recreate: a pod is lost, there is nobody else": (RECREATE, 100, 2, "0/0", "0/2", "0+2@100", "0+2@100"),
    "recreate: other replicas mid-way": (RECREATE, 100, 3, "0/0", "2/2", "0+2@100", "0+3@100"),
    "recreate: back, the new ones leave": (RECREATE, 0, 2, "0/0", "2/2", "0+2@100", "0+0@100"),
    "recreate: back, the old ones come": (RECREATE, 0, 2, "0/0", "0/0", "0+0@100", "2+0@0"),
    "recreate: back before anything left": (RECREATE, 0, 2, "2/2", "0/0", "2+0@0", "2+0@0"),
}


@pytest.mark.parametrize("name", MOVES)
def test_moves(name: str) -> None:
    strategy, goal, replicas, stable, candidate, before, after = MOVES[name]
    assert next_split(strategy, goal, replicas, fleet(stable, candidate), split(before)) == split(after)


# Strategy, goal, replicas | asked for | stable and candidate pods | whether the goal is reached
GOALS: Final = (
    (SURGE, 25, 4, "4+1@25", "4/4", "1/1", True),
    (SURGE, 25, 4, "4+1@0", "4/4", "1/1", False),
    (SURGE, 50, 4, "4+1@25", "4/4", "1/1", False),
    (SURGE, 50, 4, "4+2@50", "4/4", "1/2", False),
    (SURGE, 100, 4, "4+4@100", "4/4", "4/4", True),
    (SURGE, 100, 4, "4+4@50", "4/4", "4/4", False),
    (REPLACE, 25, 4, "3+1@25", "3/3", "1/1", True),
    (REPLACE, 25, 2, "1+1@50", "1/1", "1/1", True),
    (REPLACE, 100, 4, "1+3@75", "1/1", "3/3", False),
    (REPLACE, 100, 4, "0+4@100", "0/0", "4/4", True),
    (REPLACE, 100, 4, "0+4@100", "0/0", "3/4", False),
    (RECREATE, 100, 2, "0+2@100", "0/0", "1/2", False),
    (RECREATE, 100, 2, "0+2@100", "0/0", "2/2", True),
)


@pytest.mark.parametrize(("strategy", "goal", "replicas", "asked", "stable", "candidate", "reached"), GOALS)
def test_when_a_goal_is_reached(
    strategy: Strategy, goal: int, replicas: int, asked: str, stable: str, candidate: str, reached: bool
) -> None:
    assert is_reached(strategy, goal, replicas, split(asked), fleet(stable, candidate)) is reached


@given(weight=st.integers(1, 100), replicas=st.integers(1, 1000))
def test_a_share_of_the_traffic_gets_pods_that_carry_it_and_none_too_many(weight: int, replicas: int) -> None:
    pods = pods_for(weight, replicas)
    assert 100 * pods >= weight * replicas
    assert pods == 1 or 100 * (pods - 1) < weight * replicas
