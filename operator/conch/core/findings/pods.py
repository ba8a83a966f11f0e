"""Checks of what the cluster makes of the pods."""

from datetime import timedelta
from typing import Final

from conch.api.reasons import Reason
from conch.api.spec import ModelDeploymentSpec
from conch.core.autoscaling import autoscaling_of
from conch.core.finding import EXCEEDED_QUOTA, Finding, blocked, progressing, stalled
from conch.core.pod_trouble import crash_loop, missing_configuration, missing_image
from conch.core.situation import Situation

_RECENTLY: Final = timedelta(minutes=10)
_VOLUME_WORDS: Final = ("persistentvolumeclaim", "persistent volume", "storageclass", "volume node affinity")


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
    waiting = (pod.unschedulable_message for pod in situation.pods if not pod.scheduled)
    message = next((m.rstrip(". ") for m in waiting if any(word in m.lower() for word in _VOLUME_WORDS)), None)
    if message is None:
        return None
    assert isinstance(situation.spec, ModelDeploymentSpec)  # noqa: S101 - an earlier check's promise
    if "not found" in message and situation.spec.model.storage is None:
        return stalled(
            Reason.SOURCE_NOT_FOUND, f"model.source.uri: {message}. Create the claim, or name one that is there."
        )
    return blocked(
        Reason.VOLUME_UNAVAILABLE,
        f"No volume for the pods yet: {message}. Check model.storage, its StorageClass and the namespace's claims.",
    )


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
    gpu = situation.spec.gpu
    if gpu.count and f"Insufficient {gpu.resource}" in message:
        return blocked(
            Reason.WAITING_FOR_GPU,
            f"{count} wait for {gpu.count} free {gpu.resource}: {message}. "
            f"{_or_lower(situation, 'Free a GPU, add a node,', 'gpu.count')}.",
        )
    return blocked(
        Reason.UNSCHEDULABLE, f"{count} fit on no node: {message}. Check gpu, scheduling and runtime.resources."
    )


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
