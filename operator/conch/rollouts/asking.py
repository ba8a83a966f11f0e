"""Asks the operator to do something with a rollout, and waits for its answer."""

import asyncio
import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import typer

from conch.api import names
from conch.api.command import Command, Verb
from conch.api.model_deployment import InvalidSpec, ModelDeployment, parse
from conch.client.errors import ClientError
from conch.core.revision import revision_of
from conch.core.rollout.commands import obey
from conch.kube import resources
from conch.kube.client import KubeClient
from conch.kube.errors import ApiError, ApiUnavailableError
from conch.rollouts.reading import read, read_again
from conch.why.refusals import in_plain_words

POLL_SECONDS: Final = 0.5
FIELD_MANAGER: Final = "conch-cli"

_OPERATOR: Final = (
    "Is it running? kubectl get pods -A -l app.kubernetes.io/name=conch,app.kubernetes.io/component=operator tells."
)


class NotHeededError(Exception):
    """Nothing was done: it makes no sense now, the operator refused it, or it did not answer. Told as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a person wants."""

    verb: Verb
    full: bool = False
    """With promote: all the way."""
    revision: str | None = None
    """With rollback: to this one, not to the newest."""
    timeout_seconds: float
    """How long to wait for the operator's answer."""


async def ask(client: KubeClient, namespace: str, name: str, request: Request) -> str:
    """Have it done; returns what the operator answered. Raises NotHeededError, and ClientError for the API server."""
    loop = asyncio.get_running_loop()
    until = loop.time() + request.timeout_seconds
    command = await _place(client, namespace, name, request, until)
    while True:
        body = await read_again(client, namespace, name)
        owner = parse(body) if body else None
        if owner and (answer := _answer(owner, command)):
            return answer
        if loop.time() >= until:
            raise NotHeededError(_no_answer(owner, request))
        await asyncio.sleep(POLL_SECONDS)


async def _place(client: KubeClient, namespace: str, name: str, request: Request, until: float) -> Command:
    """Write the command on exactly the object that was looked at."""
    first = owner = parse(await read(client, namespace, name))
    while True:
        command = _command(owner, first, request)
        try:
            await client.merge_patch(
                resources.MODEL_DEPLOYMENTS, namespace, name, _patch(owner, command), field_manager=FIELD_MANAGER
            )
            return command
        except (ApiError, ApiUnavailableError) as error:
            if not (isinstance(error, ApiError) and error.conflict):
                words = in_plain_words(error, verb="patch", resource=resources.MODEL_DEPLOYMENTS, namespace=namespace)
                raise ClientError(words) from error
        # While a rollout is under way its status is written often: look again whether the command still fits.
        if asyncio.get_running_loop().time() >= until:
            raise NotHeededError("The object is changed all the time, so the command could not be written; ask again.")
        owner = parse(await read(client, namespace, name))


def _command(owner: ModelDeployment, first: ModelDeployment, request: Request) -> Command:
    """The command for the object as it is now. Raises NotHeededError for what is known without asking."""
    who = f"ModelDeployment {owner.namespace}/{owner.name}"
    if owner.deleting:
        raise NotHeededError(f"{who} is being deleted.")
    rollout = owner.status.rollout
    if rollout is None:
        raise NotHeededError(
            f"{who} has no rollout: nothing has taken over from its first revision yet. "
            f"conch why {owner.name} -n {owner.namespace} tells how it is."
        )
    if first.status.rollout and first.status.rollout.id != rollout.id:
        raise NotHeededError("Meanwhile another rollout has begun, so nothing was asked for; look, and ask again.")
    _check_others(owner, first, request)
    command = Command(
        command=request.verb,
        rollout=rollout.id,
        nonce=secrets.token_hex(8),
        full=request.full,
        revision=request.revision,
    )
    # The operator's own rules. What it would make of `retry` is not known where only it can read the spec, and which
    # revisions it remembers is for it to say.
    asked = None if isinstance(owner.spec, InvalidSpec) else revision_of(owner.spec)
    if request.verb is not Verb.ROLLBACK and (asked is not None or request.verb is not Verb.RETRY):
        foreseen = obey(command, owner.status, asked=asked or "", past=(), now=datetime.now(UTC)).command
        if foreseen and not foreseen.accepted:
            raise NotHeededError(foreseen.message)
    return command


def _check_others(owner: ModelDeployment, first: ModelDeployment, request: Request) -> None:
    """Two promotions at the same time would go two steps: who comes second looks first. An abort always comes first."""
    other = owner.command
    if other is None:
        return
    unanswered = owner.status.command is None or owner.status.command.nonce != other.nonce
    if request.verb is Verb.ABORT:
        if unanswered:
            typer.echo(f"It takes the place of {_words(owner)}, which the operator has not answered yet.", err=True)
        return
    if first.command is None or first.command.nonce != other.nonce:
        raise NotHeededError(
            f"{_words(owner).capitalize()} was given at the same time, so this one was not; look, and ask again."
        )
    if unanswered:
        raise NotHeededError(
            f"{_words(owner).capitalize()} was given before, and the operator has not answered it yet, so this one was "
            f"not given. Ask again once it has; conch abort does not wait for that. {_OPERATOR}"
        )


def _patch(owner: ModelDeployment, command: Command) -> dict[str, object]:
    annotations = {names.ANNOTATION_COMMAND: json.dumps(command.to_wire())}
    return {"metadata": {"resourceVersion": owner.resource_version, "annotations": annotations}}


def _answer(owner: ModelDeployment, command: Command) -> str | None:
    """What the operator made of it; None if nothing yet. Raises NotHeededError."""
    told = owner.status.command
    if told and told.nonce == command.nonce:
        if not told.accepted:
            raise NotHeededError(told.message)
        return told.message + _still_paused(owner, command)
    if owner.command is None:
        raise NotHeededError("Somebody has removed the command from the object before the operator answered.")
    if owner.command.nonce != command.nonce:
        raise NotHeededError(
            f"{_words(owner).capitalize()} was given at the same time and has taken this one's place before the answer "
            f"was seen; look with conch rollout status {owner.name} -n {owner.namespace}, and ask again."
        )
    return None


def _still_paused(owner: ModelDeployment, command: Command) -> str:
    goes_on = command.command in (Verb.PROMOTE, Verb.RESUME)
    if goes_on and not isinstance(owner.spec, InvalidSpec) and owner.spec.rollout.paused:
        return " But spec.rollout.paused is true: it goes no further until that is false."
    return ""


def _no_answer(owner: ModelDeployment | None, request: Request) -> str:
    within = f"within {request.timeout_seconds:g} s"
    if owner is None:
        return f"The API server could not be asked for the operator's answer {within}. The command stands."
    if isinstance(owner.spec, InvalidSpec) and request.verb.needs_spec:
        return (
            f"The operator has not answered {within}: it heeds this command once it can read the spec. "
            f"{owner.spec.message}"
        )
    return f"The operator has not answered {within}. {_OPERATOR} The command stands: it is heeded once that is back."


def _words(owner: ModelDeployment) -> str:
    """The command that is on the object."""
    given = owner.command
    return f"another command ({given.command})" if isinstance(given, Command) else "another, unreadable command"
