"""Checks of what the cluster makes of the pods."""

from datetime import timedelta
from typing import Final

from conch.api import names
from conch.api.reasons import Reason
from conch.api.spec import ModelDeploymentSpec
from conch.core.autoscaling import autoscaling_of
from conch.core.cache_fallback import claim_of, may_be_of_cache
from conch.core.finding import EXCEEDED_QUOTA, Finding, blocked, progressing, stalled
from conch.core.observed_pod import DEVICES_ALLOCATED
from conch.core.pod_trouble import crash_loop, missing_configuration, missing_image
from conch.core.situation import Situation
from conch.core.waiting_for_volume import names_claim, waiting_for_volume

_RECENTLY: Final = timedelta(minutes=10)


def pods_can_be_created(situation: Situation) -> Finding | None:
    """The Deployment controller is allowed to create the pods."""
    wanted = situation.succession.wanted
    deployment = situation.observed.deployment_of(wanted.workload) if wanted else None
    if deployment is None or not deployment.creation_error or len(situation.pods) >= situation.wanted_replicas:
        return None
    if EXCEEDED_QUOTA in deployment.creation_error:
        missing = situation.wanted_replicas - len(situation.pods)
        return blocked(
            Reason.QUOTA_BLOCKED,
            f"{missing} of {situation.wanted_replicas} replicas are missing, for the namespace's quota allows no more: "
            f"{deployment.creation_error}. {_or_lower(situation, 'Raise it')}.",
        )
    return stalled(Reason.POD_REFUSED, f"The pods are refused: {deployment.creation_error}")


def images_are_pulled(situation: Situation) -> Finding | None:
    """No pod fails to get its images."""
    return missing_image(situation.pods)


def containers_are_configured(situation: Situation) -> Finding | None:
    """The kubelets find everything that the containers name."""
    return missing_configuration(situation.pods)


def containers_keep_running(situation: Situation) -> Finding | None:
    """No container crashes again and again."""
    return crash_loop(situation.pods, situation.now)


def pods_are_not_evicted(situation: Situation) -> Finding | None:
    """No pod that is missing was ended by its node.

    One that comes in its place would most likely end the same way.
    """
    wanted = situation.succession.wanted
    if wanted is None or situation.ready >= situation.wanted_replicas:
        return None
    for pod in situation.observed.pods:
        # Failed pods stay for long: what became of one last week explains nothing that is missing today.
        ended = max((each.last_exit_at for each in pod.containers if each.last_exit_at), default=situation.now)
        if pod.workload == wanted.workload and pod.failure and situation.now - ended < _RECENTLY:
            return stalled(Reason.POD_FAILED, f"The node ended pod {pod.name}: {pod.failure}")
    return None


def pods_have_volumes(situation: Situation) -> Finding | None:
    """No pod waits for a volume."""
    message = next((said for _, said in waiting_for_volume(situation.pods)), None)
    if message is None:
        return None
    if (claim := _cache_in_the_way(situation, message)) is not None:
        return progressing(
            Reason.MODEL_CACHE_UNAVAILABLE,
            f"The model cache keeps pods from being scheduled: {message}. They are about to be made anew without it. "
            f"Have the claim {claim} of this namespace made, or mended.",
        )
    assert isinstance(situation.spec, ModelDeploymentSpec)  # noqa: S101 - an earlier check's promise
    if "not found" in message and situation.spec.model.storage is None:
        claims = {field: source.claim for field, source in situation.spec.sources.items() if source.claim}
        field = next((field for field, claim in claims.items() if f'"{claim}"' in message), "model.source")
        return stalled(Reason.SOURCE_NOT_FOUND, f"{field}.uri: {message}. Create the claim, or name one that is there.")
    return blocked(
        Reason.VOLUME_UNAVAILABLE,
        f"No volume for the pods yet: {message}. Check model.storage, its StorageClass and the namespace's claims.",
    )


def _cache_in_the_way(situation: Situation, message: str) -> str | None:
    """The cache's claim, if the pods wait for it; where none is named, it is the one that they can do without."""
    wanted, owner = situation.succession.wanted, situation.owner
    if wanted is None:
        return None
    record = situation.observed.record_of(owner.uid, names.workload_object(owner.name, wanted.workload))
    claim = claim_of(record) if record else None
    if record is None or claim is None or not may_be_of_cache(record, claim, message):
        return None
    live = situation.observed.deployment_of(wanted.workload)
    return claim if names_claim(message, claim) or (live is not None and live.mounts_cache) else None


def pods_have_a_node(situation: Situation) -> Finding | None:
    """The scheduler finds a node for every pod."""
    waiting = [pod for pod in situation.pods if pod.unschedulable_message and not pod.scheduled]
    # Beyond what is wanted: one that is to take the place of a pod whose node is about to be drained.
    if not waiting or situation.ready >= situation.wanted_replicas:
        return None
    message = waiting[0].unschedulable_message.rstrip(". ")
    # While fewer are wanted than before, some that wait are about to go.
    missing = min(len(waiting), situation.wanted_replicas - situation.ready)
    count = f"{missing} of {situation.wanted_replicas} replicas"
    assert isinstance(situation.spec, ModelDeploymentSpec)  # noqa: S101 - an earlier check's promise
    gpu, queue = situation.spec.gpu, situation.spec.scheduling.queue_name
    if waiting[0].gated:
        return blocked(Reason.QUOTA_BLOCKED, f"{count} are not admitted yet: {_gate(situation, queue, message)}.")
    if gpu.counted and f"Insufficient {gpu.resource}" in message:
        return blocked(
            Reason.WAITING_FOR_GPU,
            f"{count} wait for {gpu.counted} free {gpu.resource}: {message}. "
            f"{_or_lower(situation, 'Free a GPU, add a node,', 'gpu.count')}.",
        )
    if gpu.claims and DEVICES_ALLOCATED in message:
        templates = " and ".join(claim.resource_claim_template_name for claim in gpu.claims)
        return blocked(
            Reason.WAITING_FOR_GPU,
            f"{count} wait for the devices that {templates} (gpu.claims) asks for: {message}. "
            f"{_or_lower(situation, 'Free a device, add a node with such devices,')}.",
        )
    return blocked(
        Reason.UNSCHEDULABLE, f"{count} fit on no node: {message}. Check gpu, scheduling and runtime.resources."
    )


def _gate(situation: Situation, queue: str | None, message: str) -> str:
    if queue is None:
        return f"{message}. Whoever has set the gates has to open them"
    remedy = _or_lower(situation, f"See whether there is a LocalQueue {queue} and what its ClusterQueue has left,")
    return f"the queue {queue} (scheduling.queueName) has no room for them, or does not admit anything. {remedy}"


def _or_lower(situation: Situation, remedy: str, *others: str) -> str:
    """What to do, or which fields of the spec to lower where there is one that would ask for fewer servers."""
    fields = (*_count_fields(situation), *others)
    return f"{remedy} or lower {' or '.join(fields)}" if fields else remedy


def _count_fields(situation: Situation) -> tuple[str, ...]:
    asked = autoscaling_of(situation.owner)
    if asked is None:
        return ("replicas",)
    if situation.desired_replicas <= max(1, asked.effective_min_replicas):
        # As few as there may be while anybody asks: a lower maximum would change nothing, or be refused.
        return ("autoscaling.minReplicas",) if asked.effective_min_replicas > 1 else ()
    return ("autoscaling.maxReplicas",)


def nodes_answer(situation: Situation) -> Finding | None:
    """No pod that is missing was on a node that the cluster has lost."""
    wanted = situation.succession.wanted
    if wanted is None or situation.ready >= situation.wanted_replicas:
        return None
    for pod in situation.observed.pods:
        if pod.workload == wanted.workload and pod.node_lost:
            return progressing(
                Reason.NODE_LOST,
                f"The node {pod.node} of pod {pod.name} does not answer any more; another pod takes its place "
                f"({situation.ready} of {situation.wanted_replicas} replicas serve).",
            )
    return None
