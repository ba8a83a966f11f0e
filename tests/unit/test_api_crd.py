"""The CRD: bounded everywhere, small enough for kubectl apply, and true to the types it is made from."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from conch.api import names
from conch.api.crd import UnboundedSchemaError, _structural, custom_resource_definition
from conch.api.runtime import RESERVED_ENV
from tests.generate import crd_text

CRD = custom_resource_definition()
(VERSION,) = CRD["spec"]["versions"]
ROOT = VERSION["schema"]["openAPIV3Schema"]
STRUCTURE = frozenset({"type", "description", "properties", "items", "additionalProperties", "required", "default"})
CONSTRAINTS = frozenset(
    {"minLength", "maxLength", "pattern", "minimum", "maximum", "minItems", "maxItems", "maxProperties", "enum"}
)


def _nodes(node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from _nodes(child, f"{path}.{name}")
    for part, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if part in node:
            yield from _nodes(node[part], f"{path}{mark}")


def _all_nodes() -> list[tuple[str, dict[str, Any]]]:
    """Every node that is ours (the API server owns apiVersion, kind and metadata)."""
    return [pair for part in ("spec", "status") for pair in _nodes(ROOT["properties"][part], part)]


def _at(path: str) -> dict[str, Any]:
    """The schema node under a JSON path such as `.spec.model.version` or `.status.conditions[?(...)].status`."""
    node: dict[str, Any] = ROOT
    for name, filtered in re.findall(r"\.(\w+)(\[[^\]]*\])?", re.sub(r"\(.*?\)", "", path)):
        node = node["properties"][name]
        node = node["items"] if filtered else node
    return node


def test_every_string_is_bounded() -> None:
    unbounded = [
        path
        for path, node in _all_nodes()
        if node.get("type") == "string" and "maxLength" not in node and "enum" not in node
    ]
    assert unbounded == []


def test_every_number_is_bounded_on_both_sides() -> None:
    numbers = [(path, node) for path, node in _all_nodes() if node.get("type") in ("integer", "number")]
    assert [path for path, node in numbers if not {"minimum", "maximum"} <= node.keys()] == []
    assert [path for path, node in numbers if not node["minimum"] < node["maximum"]] == []


def test_every_list_is_bounded() -> None:
    assert [path for path, node in _all_nodes() if node.get("type") == "array" and "maxItems" not in node] == []


def test_every_map_is_bounded_and_its_keys_too_or_it_has_named_fields() -> None:
    objects = [(path, node) for path, node in _all_nodes() if node.get("type") == "object"]
    assert [path for path, node in objects if "properties" not in node and "maxProperties" not in node] == []


def test_every_quantity_is_bounded() -> None:
    quantities = [node for _, node in _all_nodes() if node.get("x-kubernetes-int-or-string")]
    assert quantities
    assert all({"pattern", "maxLength", "minimum", "maximum"} <= node.keys() for node in quantities)


def test_every_node_has_a_type() -> None:
    untyped = [p for p, node in _all_nodes() if "type" not in node and not node.get("x-kubernetes-int-or-string")]
    assert untyped == []


def test_nothing_is_in_the_schema_that_a_structural_schema_must_not_hold() -> None:
    for path, node in _all_nodes():
        allowed = STRUCTURE | CONSTRAINTS | {"format"} | {key for key in node if key.startswith("x-kubernetes-")}
        allowed |= {"anyOf"} if node.get("x-kubernetes-int-or-string") else set()
        assert node.keys() <= allowed, path


def test_what_has_a_default_is_not_required() -> None:
    for path, node in _all_nodes():
        required = set(node.get("required", ()))
        assert required <= node.get("properties", {}).keys(), path
        assert not [name for name in required if "default" in node["properties"][name]], path


def test_a_model_needs_its_version_and_its_source_and_nothing_else() -> None:
    assert ROOT["required"] == ["spec"]
    assert _at(".spec")["required"] == ["model"]
    assert sorted(_at(".spec.model")["required"]) == ["source", "version"]
    assert _at(".spec.model.source")["required"] == ["uri"]


def test_the_replicas_have_no_default_because_an_autoscaler_may_own_them() -> None:
    assert "default" not in _at(".spec.replicas")


def test_kubectl_apply_can_remember_it() -> None:
    assert len(json.dumps(CRD)) < 200_000


@pytest.mark.parametrize("column", VERSION["additionalPrinterColumns"], ids=lambda column: str(column["name"]))
def test_a_column_shows_a_field_of_its_type(column: dict[str, Any]) -> None:
    if column["jsonPath"] != ".metadata.creationTimestamp":
        assert _at(column["jsonPath"])["type"] == column["type"]


def test_a_column_that_filters_conditions_names_a_condition_that_exists() -> None:
    known = _at(".status.conditions[?].type")["enum"]
    for column in VERSION["additionalPrinterColumns"]:
        assert all(type_ in known for type_ in re.findall(r'@\.type=="(\w+)"', column["jsonPath"]))


def test_the_scale_subresource_points_at_fields_that_exist() -> None:
    scale = VERSION["subresources"]["scale"]
    assert _at(scale["specReplicasPath"])["type"] == "integer"
    assert _at(scale["statusReplicasPath"])["type"] == "integer"
    assert _at(scale["labelSelectorPath"])["type"] == "string"


def test_the_status_is_a_subresource() -> None:
    assert VERSION["subresources"]["status"] == {}


def test_an_object_that_nobody_has_seen_is_not_ready_in_the_words_of_kstatus() -> None:
    (condition,) = ROOT["properties"]["status"]["default"]["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == ("Ready", "Unknown", "NotObserved")
    assert set(_at(".status.conditions[?]")["required"]) <= condition.keys()


def test_the_api_server_invents_no_other_part_of_a_status() -> None:
    assert [path for path, node in _nodes(ROOT["properties"]["status"], "") if path and "default" in node] == []


def test_conditions_are_merged_by_their_type() -> None:
    conditions = _at(".status.conditions")
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_types_that_are_used_twice_are_written_out_twice() -> None:
    assert "&id" not in crd_text()


def test_every_rule_says_what_to_do() -> None:
    for path, node in (("", ROOT), *_all_nodes()):
        for rule in node.get("x-kubernetes-validations", ()):
            assert len(rule["message"]) > 20, path


def test_the_rule_about_names_lets_through_what_can_be_a_service_of_at_most_40_characters() -> None:
    (rule,) = (rule for rule in ROOT["x-kubernetes-validations"] if "metadata.name.matches" in rule["rule"])
    pattern = rule["rule"].partition("matches('")[2].removesuffix("')")
    good = ("a", "sentiment", "a-1", "a" * 40)
    bad = ("", "3-model", "a-", "-a", "a.b", "A", "a" * 41, "a_b")
    assert [name for name in good if not re.search(pattern, name)] == []
    assert [name for name in bad if re.search(pattern, name)] == []


def test_the_rule_about_environment_is_that_of_the_types() -> None:
    (rule,) = _at(".spec.runtime.env")["x-kubernetes-validations"]
    assert f"'{RESERVED_ENV}'" in rule["rule"]


@pytest.mark.parametrize(
    "name",
    [
        *("LD_PRELOAD", "PYTHONPATH", "PATH", "BASH_ENV", "AWS_PROFILE", "CONCH_ADMIN_KEY", "CUDA_INJECTION64_PATH"),
        *("NVTX_INJECTION64_PATH", "INTEL_LIBITTNOTIFY64", "OMP_TOOL_LIBRARIES", "OV_FRONTEND_PATH", "NCCL_NET_PLUGIN"),
        *("OCL_ICD_VENDORS", "AMD_VISIBLE_DEVICES", "MALLOC_PRELOAD", "VLLM_LOGGING_CONFIG_PATH"),
    ],
)
def test_a_variable_that_changes_what_runs_is_reserved(name: str) -> None:
    assert re.match(RESERVED_ENV, name)


@pytest.mark.parametrize(
    "name", ["OMP_NUM_THREADS", "MY_PATH", "PATHS", "LDAP_HOST", "MY_PYTHON", "OVERFLOW", "CUDA_CACHE_MAXSIZE"]
)
def test_an_ordinary_variable_is_not_reserved(name: str) -> None:
    assert not re.match(RESERVED_ENV, name)


def test_the_kind_is_where_names_says() -> None:
    assert CRD["metadata"]["name"] == f"{names.PLURAL}.{names.GROUP}"
    assert (CRD["spec"]["names"]["kind"], VERSION["name"]) == (names.KIND, names.VERSION)


@pytest.mark.parametrize(
    "node",
    [
        {"type": "string"},
        {"type": "integer", "minimum": 1},
        {"type": "array", "items": {"type": "boolean"}},
        {"type": "object", "additionalProperties": {"type": "boolean"}},
        {"type": "integer", "exclusiveMinimum": 0, "maximum": 1},
    ],
    ids=["string", "number", "list", "map", "exclusive bound"],
)
def test_a_field_without_a_bound_cannot_be_generated(node: dict[str, Any]) -> None:
    with pytest.raises(UnboundedSchemaError):
        _structural(node, {}, ".spec.new")
