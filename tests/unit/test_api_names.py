"""Names and ids of children: valid, within bounds, never the same twice."""

import re

from hypothesis import given
from hypothesis import strategies as st

from conch.api import names

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
OBJECT_NAMES = st.from_regex(r"\A[a-z]([-a-z0-9]{0,38}[a-z0-9])?\Z")
UIDS = st.uuids().map(str)
NUMBERS = st.integers(1, 2**31 - 1)


@given(st.lists(st.tuples(UIDS, NUMBERS), min_size=2, max_size=40, unique=True))
def test_workload_ids_differ_over_counters_and_uids(workloads: list[tuple[str, int]]) -> None:
    assert len({names.workload_id(uid, number) for uid, number in workloads}) == len(workloads)


def test_a_thousand_workloads_of_one_object_have_a_thousand_ids() -> None:
    uid = "11111111-2222-3333-4444-555555555555"
    assert len({names.workload_id(uid, number) for number in range(1, 1001)}) == 1000


def test_uid_and_counter_cannot_run_into_each_other() -> None:
    assert names.workload_id("uid-1", 12) != names.workload_id("uid-11", 2)


@given(UIDS, NUMBERS)
def test_a_workload_id_is_the_same_every_time(uid: str, number: int) -> None:
    assert names.workload_id(uid, number) == names.workload_id(uid, number)


@given(OBJECT_NAMES, UIDS, NUMBERS)
def test_every_child_of_the_longest_name_has_a_valid_dns_label(name: str, uid: str, number: int) -> None:
    name = name.ljust(40, "x")
    workload = names.workload_id(uid, number)
    for child in (
        names.workload_object(name, workload),
        names.service(name),
        names.disruption_budget(name),
        names.network_policy(name),
        names.admin_key_secret(name, uid),
    ):
        assert DNS_LABEL.fullmatch(child), child


@given(OBJECT_NAMES, OBJECT_NAMES, UIDS, UIDS)
def test_two_objects_never_share_a_workloads_name(one: str, other: str, uid: str, other_uid: str) -> None:
    mine = names.workload_object(one, names.workload_id(uid, 1))
    theirs = names.workload_object(other, names.workload_id(other_uid, 1))
    assert (mine == theirs) == ((one, uid) == (other, other_uid))


@given(OBJECT_NAMES, UIDS)
def test_labels_are_valid_label_values(name: str, uid: str) -> None:
    name = name.ljust(40, "x")
    for value in names.workload_labels(name, names.workload_id(uid, 1)).values():
        assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", value)


def test_the_pods_of_a_workload_carry_what_its_selector_asks_for() -> None:
    assert names.workload_selector("a", "w").items() <= names.workload_labels("a", "w").items()


def test_the_pods_of_an_object_are_those_of_its_workloads() -> None:
    assert names.pods_selector("a").items() <= names.workload_labels("a", "w").items()


def test_a_selector_tells_workloads_and_objects_apart() -> None:
    selectors = [tuple(names.workload_selector(*of).items()) for of in (("a", "w"), ("a", "v"), ("b", "w"))]
    assert len(set(selectors)) == 3


def test_an_admin_key_is_different_for_every_object_and_every_installation() -> None:
    keys = {names.admin_key(key, uid) for key in (b"one", b"two") for uid in ("a", "b")}
    assert len(keys) == 4


def test_an_admin_key_comes_back_equal_and_does_not_show_what_it_is_made_from() -> None:
    key = names.admin_key(b"installation", "uid-of-the-object")
    assert key == names.admin_key(b"installation", "uid-of-the-object")
    assert re.fullmatch(r"[0-9a-f]{64}", key)


def test_a_namesake_does_not_get_the_secret_of_the_earlier_object() -> None:
    assert names.admin_key_secret("a", "first") != names.admin_key_secret("a", "second")
