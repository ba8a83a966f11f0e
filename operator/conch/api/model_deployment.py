"""The object itself: metadata that Conch reads, spec and status."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, Field, ValidationError

from conch.api import names
from conch.api.cel import Rule, rules
from conch.api.command import Command, UnreadableCommand, parse_command
from conch.api.gpu import COUNT_DEFAULT
from conch.api.spec import TWO_OF_A_NAME, ModelDeploymentSpec
from conch.api.status import ModelDeploymentStatus
from conch.api.types import ApiModel

ROOT_RULES: Final = (
    Rule(
        rule="self.metadata.name.matches('^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$')",
        message="metadata.name is also the name of the Service: at most 40 lower-case letters, digits and dashes, "
        "beginning with a letter; rename the object",
    ),
    Rule(
        rule="has(self.spec.model.name) || !has(self.spec.models)"
        " || !self.spec.models.exists(m, m.name == self.metadata.name)",
        message=f"spec.models: {TWO_OF_A_NAME}; spec.model has the object's name unless model.name gives another",
    ),
)

_CLAIMS: Final = "(has(self.gpu.claims) && self.gpu.claims.size() > 0)"
_OTHER_GPUS: Final = (
    "config.instanceGroups[].gpus counts from 0 and must be below gpu.count; raise gpu.count, or use a GPU of the pod"
)


def _uses_its_gpus(model: str) -> str:
    # How many GPUs a claim gives is not known here.
    return (
        f"!has({model}.config) || !has({model}.config.instanceGroups) || {model}.config.instanceGroups.all(group,"
        f" !has(group.gpus) || group.gpus.all(index, index < (has(self.gpu.count) ? self.gpu.count : {COUNT_DEFAULT})))"
    )


SPEC_RULES: Final = (
    Rule(
        rule="!has(self.models) || !has(self.model.name) || !self.models.exists(m, m.name == self.model.name)",
        message=f"models: {TWO_OF_A_NAME}",
    ),
    Rule(
        rule="!has(self.model.storage) || quantity(string(self.model.storage.size)).isGreaterThan(quantity('0'))",
        message="model.storage.size: a volume of 0 holds no model; give its size",
    ),
    Rule(
        rule="!has(self.gpu.products) || self.gpu.products.size() == 0 || !has(self.gpu.count) || self.gpu.count > 0"
        f" || {_CLAIMS}",
        message="gpu.products needs gpu.count of at least 1 or gpu.claims; remove gpu.products or ask for a GPU",
    ),
    Rule(rule=f"{_CLAIMS} || ({_uses_its_gpus('self.model')})", message=f"model.{_OTHER_GPUS}"),
    Rule(
        rule=f"{_CLAIMS} || !has(self.models) || self.models.all(model, {_uses_its_gpus('model')})",
        message=f"models[].{_OTHER_GPUS}",
    ),
    Rule(
        rule="quantity(string(self.runtime.sharedMemory)).isLessThan(quantity(string(self.runtime.resources.memory)))",
        message="runtime.sharedMemory is counted into runtime.resources.memory; make memory larger than sharedMemory",
    ),
    Rule(
        rule="!has(self.gateway.mode) || self.gateway.mode != 'Direct' || (self.rollout.steps.size() == 0"
        " && !has(self.rollout.analysis) && !(self.rollout.strategy in ['InPlace', 'Replace']))",
        message="gateway.mode Direct neither splits nor counts requests: remove rollout.steps and rollout.analysis and "
        "use rollout.strategy Surge, Recreate or Auto, or use mode Gateway",
    ),
    Rule(
        rule="!has(self.gateway.mode) || self.gateway.mode != 'GatewayAPI' || self.rollout.strategy != 'InPlace'",
        message="gateway.mode GatewayAPI sends to all pods of a version, so none can change its model without being "
        "asked meanwhile: use rollout.strategy Surge, Replace, Recreate or Auto, or use mode Gateway",
    ),
    Rule(
        rule="!has(self.gateway.mode) || self.gateway.mode != 'GatewayAPI' || !has(self.rollout.analysis)"
        " || !self.rollout.analysis.exists(check, has(check.latency))",
        message="gateway.mode GatewayAPI: how long each request takes is seen at the platform's Gateways, and Triton "
        "does not count it: remove latency from rollout.analysis (successRate, queueTime and goldenSet work), or use "
        "mode Gateway",
    ),
    Rule(
        rule="!has(self.gateway.mode) || self.gateway.mode == 'Gateway' || !has(self.rollout.shadow)",
        message="only Conch's gateways copy requests: remove rollout.shadow, or use gateway.mode Gateway",
    ),
    Rule(
        rule="self.rollout.strategy != 'Recreate' || !has(self.rollout.shadow)",
        message="rollout.strategy Recreate ends the old pods first, so there is nothing to compare with: remove "
        "rollout.shadow, or use another strategy",
    ),
    Rule(
        rule="!has(self.rollout.analysis) || self.rollout.steps.size() > 0 || !self.rollout.analysis.exists(check,"
        " has(check.latency) && has(check.latency.maxRatioToStable))",
        message="latency.maxRatioToStable compares two revisions that get requests at the same time: give rollout.steps"
        " with a share for each, or use latency.maxMilliseconds",
    ),
    Rule(
        rule="!has(self.autoscaling) || !has(self.autoscaling.minReplicas) || self.autoscaling.minReplicas > 0"
        " || !has(self.gateway.hold) || self.gateway.hold.seconds > 0",
        message="gateway.hold.seconds 0 refuses what comes while nothing runs, so nothing would wake the model: hold "
        "for longer than it takes to start, or use autoscaling.minReplicas of at least 1",
    ),
    Rule(
        rule="!has(self.runtime.instances) || string(self.runtime.instances) != 'Auto'"
        " || (has(self.autoscaling) && has(self.autoscaling.objective))",
        message="runtime.instances Auto is decided by what is measured against autoscaling.objective; give that, or a "
        "number",
    ),
    Rule(
        rule="!has(self.replicas) || !has(self.autoscaling)",
        message="replicas is a fixed count and autoscaling makes one; remove either of them",
    ),
    Rule(
        rule="!has(self.gateway.mode) || self.gateway.mode != 'Direct' || !has(self.autoscaling)"
        " || !has(self.autoscaling.minReplicas) || self.autoscaling.minReplicas > 0",
        message="gateway.mode Direct holds no requests, so nothing could wake the model: use autoscaling.minReplicas "
        "of at least 1, or mode Gateway",
    ),
    Rule(
        rule="!has(self.gateway.mode) || self.gateway.mode != 'GatewayAPI' || !has(self.autoscaling)"
        " || !has(self.autoscaling.minReplicas) || self.autoscaling.minReplicas > 0",
        message="gateway.mode GatewayAPI holds no requests, so nothing could wake the model: use "
        "autoscaling.minReplicas of at least 1, or mode Gateway",
    ),
    Rule(
        rule="self.rollout.strategy != 'Recreate' || self.rollout.steps.size() == 0",
        message="rollout.strategy Recreate moves all requests at once: remove rollout.steps, or use another strategy",
    ),
)


class ModelDeploymentSchema(ApiModel):
    """The two parts of the object that the CRD describes."""

    spec: ModelDeploymentSpec = Field(json_schema_extra=rules(*SPEC_RULES))
    status: ModelDeploymentStatus = ModelDeploymentStatus()


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidSpec:
    """In place of a spec that the API server let through but Conch cannot read; the message names the fields."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDeployment:
    """A ModelDeployment as it was read."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    created: str
    """creationTimestamp."""
    deleting: bool
    spec: ModelDeploymentSpec | InvalidSpec
    status: ModelDeploymentStatus
    command: Command | UnreadableCommand | None = None
    """What a person last asked for."""


class _Metadata(BaseModel):
    namespace: str
    name: str
    uid: str
    generation: int = 0
    resourceVersion: str
    creationTimestamp: str = ""
    deletionTimestamp: str | None = None
    annotations: dict[str, str] = {}


def parse(body: Mapping[str, Any]) -> ModelDeployment:
    """Read an object as the API server gives it."""
    metadata = _Metadata.model_validate(body["metadata"])
    return ModelDeployment(
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        generation=metadata.generation,
        resource_version=metadata.resourceVersion,
        created=metadata.creationTimestamp,
        deleting=metadata.deletionTimestamp is not None,
        spec=parse_spec(body.get("spec", {})),
        status=parse_status(body.get("status", {})),
        command=parse_command(metadata.annotations.get(names.ANNOTATION_COMMAND)),
    )


def parse_spec(spec: Mapping[str, Any]) -> ModelDeploymentSpec | InvalidSpec:
    """Read a spec; an object that predates a rule of the CRD, or a newer API, must not stop the operator."""
    try:
        return ModelDeploymentSpec.model_validate(spec)
    except ValidationError as error:
        return InvalidSpec(message="; ".join(_sentence(detail) for detail in error.errors()[:4]))


def parse_status(status: Mapping[str, Any]) -> ModelDeploymentStatus:
    """Read a status; what this version of Conch does not know in it (a newer one's, or a hand's) is left out.

    Only that and nothing around it: who loses `stable` over a field that was added to it takes the serving pods down.
    """
    readable = status
    while True:
        try:
            return ModelDeploymentStatus.model_validate(readable)
        except ValidationError as error:
            if readable is status:
                readable = deepcopy(dict(status))
            # One at a time: leaving something out moves what stands behind it in a list.
            _leave_out(readable, error.errors()[0]["loc"])


def _leave_out(tree: Any, path: tuple[int | str, ...]) -> None:
    """Remove what `path` names; where that is not there (a missing field), what should have held it."""
    *parents, last = path
    node, trail = tree, []
    for part in parents:
        trail.append((node, part))
        node = node[part]
    while isinstance(node, dict) and last not in node:
        node, last = trail.pop()
    del node[last]


def _sentence(detail: Mapping[str, Any]) -> str:
    path = ".".join(str(part) for part in ("spec", *detail["loc"]))
    return f"{path}: {detail['msg']}"
