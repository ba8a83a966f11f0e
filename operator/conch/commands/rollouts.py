"""Steer a rollout, and see how it goes."""

from typing import Annotated

import typer

from conch.commands.options import AnswerTimeout, Context, Name, Namespace, Output, OutputFormat


def promote(
    name: Name,
    full: Annotated[bool, typer.Option("--full", help="All the way, without any further step or check.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    timeout: AnswerTimeout = 30,
) -> None:
    """Let a rollout go on to its next step, whatever this one waits for.

    Asks the operator and prints its answer. Exits with 0 when that has done it, 1 when it was refused or the operator
    does not answer, and 2 when the API server could not be asked.

    \b
    Examples:
      conch promote sentiment
      kubectl conch promote sentiment -n team-a --full
    """
    _ask("promote", name, namespace, context, timeout, full=full)


def abort(name: Name, namespace: Namespace = None, context: Context = None, timeout: AnswerTimeout = 30) -> None:
    """Roll back: all traffic goes to the stable revision again, and the new one is not tried again by itself.

    Asks the operator and prints its answer. Exits with 0 when that has done it, 1 when it was refused or the operator
    does not answer, and 2 when the API server could not be asked.

    \b
    Examples:
      conch abort sentiment
      kubectl conch abort sentiment -n team-a
    """
    _ask("abort", name, namespace, context, timeout)


def retry(name: Name, namespace: Namespace = None, context: Context = None, timeout: AnswerTimeout = 30) -> None:
    """Try the revision that the spec asks for again after it was rolled back.

    Asks the operator and prints its answer. Exits with 0 when that has done it, 1 when it was refused or the operator
    does not answer, and 2 when the API server could not be asked.

    \b
    Examples:
      conch retry sentiment
      kubectl conch retry sentiment -n team-a
    """
    _ask("retry", name, namespace, context, timeout)


def rollback(
    name: Name,
    to: Annotated[
        str | None, typer.Option("--to", help="A revision of conch rollout history. Default: the newest before.")
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    timeout: AnswerTimeout = 30,
) -> None:
    """Have an earlier revision serve again, whatever the spec asks for, until that changes or somebody retries it.

    It takes over as any new revision does. Asks the operator and prints its answer. Exits with 0 when that has done it,
    1 when it was refused or the operator does not answer, and 2 when the API server could not be asked.

    \b
    Examples:
      conch rollback sentiment
      conch rollback sentiment --to 0f3a2b1c4d
    """
    _ask("rollback", name, namespace, context, timeout, revision=to)


def pause(name: Name, namespace: Namespace = None, context: Context = None, timeout: AnswerTimeout = 30) -> None:
    """Have a rollout go no further; a revision that fails is still rolled back.

    Asks the operator and prints its answer. Exits with 0 when that has done it, 1 when it was refused or the operator
    does not answer, and 2 when the API server could not be asked.

    \b
    Examples:
      conch pause sentiment
      kubectl conch pause sentiment -n team-a
    """
    _ask("pause", name, namespace, context, timeout)


def resume(name: Name, namespace: Namespace = None, context: Context = None, timeout: AnswerTimeout = 30) -> None:
    """Let a paused rollout go on.

    Asks the operator and prints its answer. Exits with 0 when that has done it, 1 when it was refused or the operator
    does not answer, and 2 when the API server could not be asked.

    \b
    Examples:
      conch resume sentiment
      kubectl conch resume sentiment -n team-a
    """
    _ask("resume", name, namespace, context, timeout)


def _ask(
    verb: str,
    name: str,
    namespace: str | None,
    context: str | None,
    timeout: float,
    *,
    full: bool = False,
    revision: str | None = None,
) -> None:
    from conch.api.command import Verb
    from conch.client.run import run
    from conch.rollouts.asking import Request
    from conch.rollouts.command import command

    request = Request(verb=Verb(verb), full=full, revision=revision, timeout_seconds=timeout)
    raise typer.Exit(run(command(name, request, namespace=namespace, context=context)))


def status(
    name: Name,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow it until it is over, or until Ctrl-C.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Tell how far a rollout is: its steps, pods and checks, and what it waits for.

    JSON is the object's status.rollout, null if there is none; with --watch a line for each change.

    Exits with 0 once it is told, with 2 when it cannot be told. With --watch: with 0 when the revision that the spec
    asks for has the traffic, with 1 when it was rolled back.

    \b
    Examples:
      conch rollout status sentiment
      conch rollout status sentiment --watch
      kubectl conch rollout status sentiment -n team-a -o json
    """
    from conch.client.run import run
    from conch.rollouts.status import status as tell_status

    as_json = output is OutputFormat.JSON
    raise typer.Exit(run(tell_status(name, namespace=namespace, context=context, watch=watch, as_json=as_json)))


def history(
    name: Name, namespace: Namespace = None, context: Context = None, output: Output = OutputFormat.TEXT
) -> None:
    """List the revisions of a model that are known, the newest first: what they are, and why any was rolled back.

    Exits with 0, and with 2 when that cannot be told.

    \b
    Examples:
      conch rollout history sentiment
      kubectl conch rollout history sentiment -n team-a -o json
    """
    from conch.client.run import run
    from conch.rollouts.history import history as tell_history

    as_json = output is OutputFormat.JSON
    raise typer.Exit(run(tell_history(name, namespace=namespace, context=context, as_json=as_json)))
