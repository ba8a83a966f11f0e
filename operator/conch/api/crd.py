"""Generates the CustomResourceDefinition from the pydantic models: the only way in which `crds/` is written.

A structural schema is stricter than JSON schema: no `$ref`, no `anyOf` with null, no `patternProperties`; and CEL's
cost limit makes bounds on every string, list, map and number a must. What is unbounded is a bug and raises.
"""

from copy import deepcopy
from typing import Any

from conch.api import names
from conch.api.cel import Rule, rules
from conch.api.model_deployment import ROOT_RULES, ModelDeploymentSchema

_COLUMNS = (
    ("Version", "integer", ".spec.model.version", 0),
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', 0),
    ("Replicas", "string", ".status.display.replicas", 0),
    ("Candidate", "string", ".status.display.candidate", 0),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', 0),
    ("Revision", "string", ".status.stable.revision", 1),
    ("GPU", "string", ".status.display.gpu", 1),
    ("URL", "string", ".status.url", 1),
    ("Age", "date", ".metadata.creationTimestamp", 0),
)

_UNOBSERVED = {
    "conditions": [
        {
            "type": "Ready",
            "status": "Unknown",
            "reason": "NotObserved",
            "message": "The operator has not seen this object yet.",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }
    ]
}


class UnboundedSchemaError(ValueError):
    """A field of the API has no bound; the message gives its path."""


def custom_resource_definition() -> dict[str, Any]:
    """The CRD of ModelDeployment as a plain object."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.PLURAL}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.KIND,
                "listKind": f"{names.KIND}List",
                "plural": names.PLURAL,
                "singular": names.KIND.lower(),
                "shortNames": ["mdep"],
                "categories": ["conch"],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _root_schema()},
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [
                        {"name": name, "type": type_, "jsonPath": path, "priority": priority}
                        for name, type_, path, priority in _COLUMNS
                    ],
                }
            ],
        },
    }


def _root_schema() -> dict[str, Any]:
    generated = ModelDeploymentSchema.model_json_schema(by_alias=True, mode="validation")
    properties = _structural(generated, generated.get("$defs", {}), "")["properties"]
    _drop_defaults(properties["status"])
    properties["status"]["default"] = _UNOBSERVED
    return {
        "type": "object",
        "description": "A model, served by a fleet of NVIDIA Triton Inference Servers.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            **properties,
        },
        **rules(*ROOT_RULES),
    }


def _structural(schema: dict[str, Any], definitions: dict[str, Any], path: str) -> dict[str, Any]:
    """One node as a structural schema, references inlined, with its bounds checked."""
    node = _resolved(schema, definitions)
    node.pop("title", None)
    if node.get("default") is None:
        node.pop("default", None)
    if node.get("x-kubernetes-int-or-string"):
        return node
    if "const" in node:
        node["enum"] = [node.pop("const")]
    match node.get("type"):
        case "object":
            _object(node, definitions, path)
        case "array":
            _need(node, path, "maxItems")
            node["items"] = _structural(node["items"], definitions, f"{path}[]")
        case "string" if "enum" not in node:
            _need(node, path, "maxLength")
        case "integer" | "number":
            _need(node, path, "minimum", "maximum")
    return node


def _object(node: dict[str, Any], definitions: dict[str, Any], path: str) -> None:
    if "properties" in node:
        # Unknown fields are refused by not being named; `false` here is not allowed beside properties.
        node.pop("additionalProperties", None)
        node["properties"] = {
            name: _structural(child, definitions, f"{path}.{name}") for name, child in node["properties"].items()
        }
        if "default" in node:
            # The fields' own defaults fill it in.
            node["default"] = {}
        return
    _need(node, path, "maxProperties")
    keys = node.pop("propertyNames", {})
    for pattern, values in node.pop("patternProperties", {}).items():
        keys = {"pattern": pattern, **keys}
        node["additionalProperties"] = values
    # Structural schemas cannot say anything of a map's keys; CEL can.
    about_keys = []
    if "pattern" in keys:
        escaped = keys["pattern"].replace("\\", "\\\\")
        about_keys.append(
            Rule(
                rule=f"self.all(key, key.matches('{escaped}'))",
                message=f"{path.lstrip('.')}: keys must be qualified names such as example.com/name",
            )
        )
    if "maxLength" in keys:
        longest = keys["maxLength"]
        about_keys.append(
            Rule(
                rule=f"self.all(key, key.size() <= {longest})",
                message=f"{path.lstrip('.')}: keys may have at most {longest} characters",
            )
        )
    if about_keys:
        node |= rules(*about_keys)
    node["additionalProperties"] = _structural(node["additionalProperties"], definitions, f"{path}{{}}")


def _resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The node with its `$ref` inlined and `X | None` reduced to X: an absent field is None, null is never written."""
    node = dict(schema)
    if "anyOf" in node and "x-kubernetes-int-or-string" not in node:
        (only,) = [choice for choice in node.pop("anyOf") if choice.get("type") != "null"]
        node = {**_resolved(only, definitions), **node}
    if "$ref" in node:
        name = node.pop("$ref").removeprefix("#/$defs/")
        # A copy, because a list that is in two places becomes an anchor in YAML.
        node = {**_resolved(deepcopy(definitions[name]), definitions), **node}
    node.pop("$defs", None)
    if "exclusiveMinimum" in node:
        raise UnboundedSchemaError("use ge= and le=; structural schemas know exclusive bounds only as flags")
    return node


def _drop_defaults(node: dict[str, Any]) -> None:
    """Status is written whole by the operator: the API server must not invent parts of it."""
    node.pop("default", None)
    for child in (*node.get("properties", {}).values(), *([node["items"]] if "items" in node else [])):
        _drop_defaults(child)


def _need(node: dict[str, Any], path: str, *bounds: str) -> None:
    if missing := [bound for bound in bounds if bound not in node]:
        raise UnboundedSchemaError(f"{path} has no {', '.join(missing)}")
