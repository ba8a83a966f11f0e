"""Extracts from a live object exactly the fields that one field manager owns.

The inverse of a server-side apply: as long as nobody else touched the object, the extract equals what was applied.
A field that somebody changed is owned by them, so it is missing from the extract and the difference shows. The format
is FieldsV1 (structured-merge-diff): `f:` a field, `k:` a list item by its keys, `v:` an item of a set, `.` the item.
"""

import json
from collections.abc import Mapping
from typing import Any


def owned_fields(live: Mapping[str, Any], field_manager: str) -> dict[str, Any]:
    """The fields of `live` that `field_manager` applied; empty when it applied none."""
    for entry in live.get("metadata", {}).get("managedFields", ()):
        if entry.get("manager") == field_manager and entry.get("operation") == "Apply" and not entry.get("subresource"):
            extracted = _extract(live, entry.get("fieldsV1", {}))
            return extracted if isinstance(extracted, dict) else {}
    return {}


def _extract(value: Any, fields: Mapping[str, Any]) -> Any:
    members = {key: child for key, child in fields.items() if key != "."}
    if not members:
        return value
    if isinstance(value, Mapping):
        return {
            key[2:]: _extract(value[key[2:]], child)
            for key, child in members.items()
            if key.startswith("f:") and key[2:] in value
        }
    if isinstance(value, list):
        return [_extract(item, child) for item in value if (child := _child_of(item, members)) is not None]
    return value


def _child_of(item: Any, members: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for key, child in members.items():
        selector = json.loads(key[2:])
        if key.startswith("v:") and item == selector:
            return {}
        if key.startswith("k:") and isinstance(item, Mapping) and selector.items() <= item.items():
            return child if isinstance(child, Mapping) else {}
    return None
