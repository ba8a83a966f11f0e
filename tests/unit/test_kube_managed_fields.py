"""What we own of a live object: exactly what we applied, as long as nobody else touched it."""

import json
from typing import Any

import pytest

from conch.kube.managed_fields import owned_fields

MANAGER = "conch-operator"


def _owned(
    live: dict[str, Any],
    fields: dict[str, Any],
    *,
    manager: str = MANAGER,
    operation: str = "Apply",
    subresource: str | None = None,
) -> dict[str, Any]:
    entry = {"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": fields}
    if subresource:
        entry["subresource"] = subresource
    return owned_fields({**live, "metadata": {**live.get("metadata", {}), "managedFields": [entry]}}, MANAGER)


def _item(**keys: Any) -> str:
    return f"k:{json.dumps(keys)}"


def test_fields_of_nested_maps_are_found_and_those_beside_them_left_out() -> None:
    live = {"spec": {"replicas": 2, "template": {"spec": {"nodeName": "n", "hostname": "h"}}, "paused": True}}
    fields: dict[str, Any] = {"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:hostname": {}}}}}
    assert _owned(live, fields) == {"spec": {"replicas": 2, "template": {"spec": {"hostname": "h"}}}}


def test_labels_of_other_people_are_not_ours() -> None:
    live = {"metadata": {"labels": {"ours": "1", "theirs": "2"}}}
    assert _owned(live, {"f:metadata": {"f:labels": {"f:ours": {}}}}) == {"metadata": {"labels": {"ours": "1"}}}


def test_a_field_whose_name_holds_dots_and_slashes_is_found() -> None:
    live = {"metadata": {"annotations": {"conch.dev/a.b": "1"}}}
    fields: dict[str, Any] = {"f:metadata": {"f:annotations": {"f:conch.dev/a.b": {}}}}
    assert _owned(live, fields) == live


def test_an_atomic_value_is_taken_whole() -> None:
    live = {"spec": {"selector": {"matchLabels": {"a": "b"}}, "args": ["x", "y"]}}
    assert _owned(live, {"f:spec": {"f:selector": {}, "f:args": {}}}) == live


def test_items_of_a_list_are_found_by_their_key_and_only_our_fields_of_them_taken() -> None:
    live = {"containers": [{"name": "triton", "image": "i", "stdin": True}, {"name": "injected", "image": "j"}]}
    fields: dict[str, Any] = {"f:containers": {_item(name="triton"): {".": {}, "f:name": {}, "f:image": {}}}}
    assert _owned(live, fields) == {"containers": [{"name": "triton", "image": "i"}]}


def test_items_of_a_list_are_told_apart_by_all_of_their_keys() -> None:
    live = {"ports": [{"port": 80, "protocol": "UDP", "x": 1}, {"port": 80, "protocol": "TCP", "x": 2}]}
    fields: dict[str, Any] = {"f:ports": {_item(port=80, protocol="TCP"): {".": {}, "f:port": {}, "f:x": {}}}}
    assert _owned(live, fields) == {"ports": [{"port": 80, "x": 2}]}


def test_items_keep_the_order_in_which_they_are_live() -> None:
    live = {"env": [{"name": "B"}, {"name": "A"}]}
    fields: dict[str, Any] = {
        "f:env": {_item(name="A"): {".": {}, "f:name": {}}, _item(name="B"): {".": {}, "f:name": {}}}
    }
    assert _owned(live, fields) == live


def test_an_item_whose_values_cannot_be_hashed_is_found_too() -> None:
    live = {"volumes": [{"name": "v", "emptyDir": {"a": [1]}}]}
    fields: dict[str, Any] = {"f:volumes": {_item(name="v"): {".": {}, "f:name": {}, "f:emptyDir": {"f:a": {}}}}}
    assert _owned(live, fields) == live


def test_items_of_a_set_are_found_by_their_value() -> None:
    live = {"metadata": {"finalizers": ["ours", "theirs"]}}
    assert _owned(live, {"f:metadata": {"f:finalizers": {'v:"ours"': {}}}}) == {"metadata": {"finalizers": ["ours"]}}


def test_a_field_that_is_gone_is_missing() -> None:
    assert _owned({"spec": {}}, {"f:spec": {"f:replicas": {}}}) == {"spec": {}}


def test_an_item_that_is_gone_is_missing() -> None:
    assert _owned({"env": []}, {"f:env": {_item(name="A"): {".": {}, "f:name": {}}}}) == {"env": []}


@pytest.mark.parametrize(
    "entry",
    [
        {"manager": "kubectl"},
        {"operation": "Update"},
        {"subresource": "status"},
    ],
    ids=["another manager", "an update instead of an apply", "a subresource"],
)
def test_what_others_own_is_not_ours(entry: dict[str, Any]) -> None:
    assert _owned({"spec": {"replicas": 1}}, {"f:spec": {"f:replicas": {}}}, **entry) == {}


def test_our_entry_is_found_among_several() -> None:
    def entry(manager: str, operation: str, name: str) -> dict[str, Any]:
        return {"manager": manager, "operation": operation, "fieldsV1": {"f:data": {f"f:{name}": {}}}}

    live = {
        "metadata": {
            "managedFields": [
                entry("kubectl", "Apply", "a"),
                entry(MANAGER, "Update", "b"),
                entry(MANAGER, "Apply", "c"),
            ]
        },
        "data": {"a": "1", "b": "2", "c": "3"},
    }
    assert owned_fields(live, MANAGER) == {"data": {"c": "3"}}


@pytest.mark.parametrize("live", [{}, {"metadata": {}}, {"metadata": {"managedFields": []}}])
def test_an_object_without_managers_is_not_ours(live: dict[str, Any]) -> None:
    assert owned_fields(live, MANAGER) == {}
