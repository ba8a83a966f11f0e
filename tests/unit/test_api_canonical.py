"""The canonical form: equal meaning hashes alike, and every change shows."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.api.canonical import canonical_hash, quantity

POWERS = {"k": 1000**1, "M": 1000**2, "G": 1000**3, "T": 1000**4, "P": 1000**5, "E": 1000**6} | {
    "Ki": 1024**1,
    "Mi": 1024**2,
    "Gi": 1024**3,
    "Ti": 1024**4,
    "Pi": 1024**5,
    "Ei": 1024**6,
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "name", "spec"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.integers(0, 10**6), st.sampled_from(sorted(POWERS)))
def test_a_suffix_multiplies(number: int, suffix: str) -> None:
    assert quantity(f"{number}{suffix}") == Decimal(number) * POWERS[suffix]


@given(st.integers(0, 10**6))
def test_a_thousand_thousandths_are_one(number: int) -> None:
    assert quantity(f"{1000 * number}m") == quantity(number) == quantity(str(number))


@given(st.integers(0, 10**4), st.sampled_from(["Ki", "Mi", "Gi", "Ti", "Pi"]))
def test_1024_of_a_binary_suffix_are_one_of_the_next(number: int, suffix: str) -> None:
    following = {"Ki": "Mi", "Mi": "Gi", "Gi": "Ti", "Ti": "Pi", "Pi": "Ei"}[suffix]
    assert quantity(f"{1024 * number}{suffix}") == quantity(f"{number}{following}")


def test_a_decimal_and_a_binary_suffix_differ() -> None:
    assert quantity("1G") < quantity("1Gi")


@pytest.mark.parametrize("text", ["", "Gi", "1gi", "1iG", "one", "1KiB", "--1"])
def test_what_is_no_quantity_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity such as") as caught:
        quantity(text)
    assert repr(text) in str(caught.value)


def _reversed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _reversed(item) for key, item in reversed(value.items())}
    return [_reversed(item) for item in value] if isinstance(value, list) else value


@given(JSON)
def test_the_order_of_keys_does_not_show(value: Any) -> None:
    assert canonical_hash(_reversed(value)) == canonical_hash(value)


def _as_json(value: Any) -> Any:
    """Equality of JSON: True is not 1."""
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, list) else (type(value), value)


@given(JSON, JSON)
def test_different_values_hash_differently(one: Any, other: Any) -> None:
    assert (canonical_hash(one) == canonical_hash(other)) == (_as_json(one) == _as_json(other))


def test_the_order_of_a_list_shows() -> None:
    assert canonical_hash({"args": ["a", "b"]}) != canonical_hash({"args": ["b", "a"]})


@pytest.mark.parametrize("section", ["limits", "requests"])
def test_resources_hash_by_their_value(section: str) -> None:
    assert canonical_hash({section: {"cpu": "1500m"}}) == canonical_hash({section: {"cpu": "1.5"}})
    assert canonical_hash({section: {"cpu": 1}}) == canonical_hash({section: {"cpu": "1000m"}})
    assert canonical_hash({section: {"cpu": "1"}}) != canonical_hash({section: {"cpu": "1001m"}})


def test_a_size_limit_hashes_by_its_value() -> None:
    assert canonical_hash({"emptyDir": {"sizeLimit": "1Gi"}}) == canonical_hash({"emptyDir": {"sizeLimit": "1024Mi"}})


def test_text_that_merely_looks_like_a_quantity_is_kept() -> None:
    assert canonical_hash({"labels": {"size": "1Gi"}}) != canonical_hash({"labels": {"size": "1024Mi"}})


def test_quantities_inside_lists_are_found() -> None:
    def pod(memory: str) -> dict[str, Any]:
        return {"containers": [{"resources": {"limits": {"memory": memory}}}]}

    assert canonical_hash(pod("4Gi")) == canonical_hash(pod("4096Mi"))
    assert canonical_hash(pod("4Gi")) != canonical_hash(pod("4G"))


@pytest.mark.parametrize("text", ["1000000u", "1000000000n", "1000m", "1.0"])
def test_the_finest_suffixes_that_the_api_server_writes_are_understood(text: str) -> None:
    assert quantity(text) == 1


def test_something_else_in_the_place_of_a_quantity_hashes_as_it_is() -> None:
    assert canonical_hash({"sizeLimit": "big"}) != canonical_hash({"sizeLimit": "bigger"})


def test_an_empty_list_of_endpoints_is_what_the_api_server_calls_null() -> None:
    assert canonical_hash({"endpoints": []}) == canonical_hash({"endpoints": None})
    assert canonical_hash({"other": []}) != canonical_hash({"other": None})
