"""Whether the pods that there are can change their model in place; if not, why, in words for people."""

from decimal import Decimal
from typing import Final

from conch.api import names
from conch.api.agent_report import AgentReport
from conch.api.assignment import Assignment
from conch.api.canonical import quantity
from conch.api.gateway import GatewayMode
from conch.api.model import ModelSource
from conch.api.model_deployment import ModelDeployment
from conch.api.spec import ModelDeploymentSpec
from conch.api.status import ServedRevision
from conch.core.desired.workload_record import pod_template_json
from conch.core.observed import Observed
from conch.core.policy import InstallationPolicy
from conch.core.rollout.verified import ready_pods

CHANGES_MOST: Final = 20
"""How often a pod changes its model: what Triton does not give back when it unloads one adds up."""
_OF_FILES: Final = Decimal("1.2")
"""What a model takes of a GPU, by its files, where nobody says: the weights, and what executing needs beside them."""
_OF_MEMORY: Final = Decimal("0.9")
"""As much of a GPU's or a container's memory may be used: what is beyond is no room for anything."""
_SERVER_BYTES: Final = 300 * 1024**2
"""What Triton itself takes of its container's memory."""
_LOADED: Final = Decimal(2)
"""What a model takes of a container's memory, by its files: the weights as read, and as they are computed with."""


def misfit(
    owner: ModelDeployment,
    spec: ModelDeploymentSpec,
    stable: ServedRevision,
    observed: Observed,
    *,
    policy: InstallationPolicy,
) -> str | None:
    """Why the stable revision's pods cannot be changed to what the spec asks for; empty if they can.

    None as long as an agent was not heard that most likely will be. More than one pod change one after the other, each
    without the model that it had; the only one needs memory for both.
    """
    if spec.gateway.mode is not GatewayMode.GATEWAY:
        return f"gateway.mode {spec.gateway.mode} cannot take a pod out of the traffic while it changes"
    record = observed.record_of(owner.uid, names.workload_object(owner.name, stable.home))
    if record is None or record.pod_template_json != pod_template_json(owner, spec, stable.home, policy):
        return "more than the model changes, so it needs other pods"
    if _is_at_the_same_place(owner, spec, stable, observed):
        return "its source is the same and names no digest, so only a new pod fetches what lies there now"
    if spec.desired_replicas == 1 and spec.models:
        return "the only replica would have to hold each of several models twice"
    pods = ready_pods(stable, observed)
    if any(pod.report is None and not pod.cannot_be_asked for pod in pods):
        return None
    reports = [pod.report for pod in pods if pod.report]
    if not reports or len(reports) < len(pods):
        return "there is no pod that serves and whose agent answers"
    if not all(report.changes_in_place for report in reports):
        return "the pods' agents are of an earlier version, which cannot change a model in place"
    most = max(report.changed for report in reports)
    if most >= CHANGES_MOST:
        return f"a pod has changed its model {most} times, and is due to be made anew"
    if spec.desired_replicas == 1:
        return next((lack for report in reports if (lack := _lack_of_memory(report, spec))), "")
    return ""


def _is_at_the_same_place(
    owner: ModelDeployment, spec: ModelDeploymentSpec, stable: ServedRevision, observed: Observed
) -> bool:
    """Whether agents would take files for the new revision's that they hold for the old one.

    They know files by their source: one that is written to in place has others by now.
    """
    record = observed.record_of(owner.uid, names.workload_object(owner.name, stable.workload))
    if record is None:
        return True
    before = Assignment.model_validate_json(record.assignment_json)
    known = {_place(model.source) for model in (before, *before.models)}
    return any(source.digest is None and _place(source) in known for source in spec.sources.values())


def _place(source: ModelSource) -> tuple[str, str | None]:
    return source.uri, source.endpoint


def _lack_of_memory(report: AgentReport, spec: ModelDeploymentSpec) -> str:
    """Why both models do not fit into one server, by what is known of the one that serves."""
    if spec.gpu.wanted:
        return _lack_on_gpu(report, spec)
    of_both = 2 * _LOADED * report.fetched_bytes + _SERVER_BYTES
    limit = quantity(spec.runtime.resources.memory) * _OF_MEMORY
    if of_both > limit:
        return (
            f"two models of about {_mebibytes(report.fetched_bytes)} do not fit into runtime.resources.memory "
            f"({spec.runtime.resources.memory}) beside each other"
        )
    return ""


def _lack_on_gpu(report: AgentReport, spec: ModelDeploymentSpec) -> str:
    used, total = report.gpu_memory_used_bytes, report.gpu_memory_total_bytes
    if used is None or total is None:
        return "Triton does not tell how much of its GPU's memory is free"
    said = spec.model.gpu_memory
    needed = quantity(said) if said else report.fetched_bytes * _OF_FILES
    if used + needed > total * _OF_MEMORY:
        what = f"model.gpuMemory {said}" if said else f"files of {_mebibytes(report.fetched_bytes)}"
        return (
            f"the new model ({what}) does not fit beside the old one: {_mebibytes(total - used)} of the GPU's "
            f"{_mebibytes(total)} are free"
        )
    return ""


def _mebibytes(count: Decimal | int) -> str:
    return f"{int(count) // 1024**2} MiB"
