"""What an agent does for the other revision of a change while it serves: a pure function, called by decide.py.

The files are fetched, verified and pinned. Where the two revisions are to be loaded at the same time, the new one is
then loaded under a name of its own, answers its golden set, and is taken away again: so a version that does not load,
or does not answer as recorded, is found before any client sees it. It is loaded once more when it is this pod's turn.
"""

from conch.agent.state import Changing, Disk, Server, serves
from conch.agent.step_kinds import Fetch, Idle, LayOut, Load, PreparingStep, Refuse, Remove, Replay, Unload
from conch.agent.wanted import Wanted
from conch.api.agent_report import AgentPhase


def next_preparation(*, serving: Wanted, changing: Changing, disk: Disk, server: Server, now: float) -> PreparingStep:
    """The one thing to do now for `changing.other`, in a pod that is to serve `serving` and has nothing else to do."""
    wanted, failure = changing.other, changing.failure
    if refused := _refusal(serving, changing, disk, server):
        return Refuse(message=refused)
    if failure is not None and now < failure.retry_at:
        return Idle(phase=AgentPhase.FAILED, message=failure.message)
    fetch = Fetch(wanted=wanted, kept=frozenset({serving.fetch_key}))
    if failure is not None and failure.refetch:
        return fetch
    digest, expected = disk.fetched.get(wanted.fetch_key), wanted.expected_digest
    if digest is None:
        return fetch
    if expected is None:
        return Idle(phase=AgentPhase.FETCHED, message="waiting for the operator to pin what was fetched")
    if digest != expected:
        return fetch
    if (trial := changing.trial) is None:
        return Idle(phase=AgentPhase.READY)
    return _next_of_trial(trial, serving, changing, disk, server, now)


def _next_of_trial(
    trial: Wanted, serving: Wanted, changing: Changing, disk: Disk, server: Server, now: float
) -> PreparingStep:
    states = {v.state for v in server.versions if v.name == trial.name}
    laid_out = dict(disk.layouts).get(trial.name)
    if changing.golden.report is not None:
        if "READY" in states:
            return Unload(name=trial.name)
        if states:
            return Idle(phase=AgentPhase.LOADING, message="Triton unloads what was tried")
        return Idle(phase=AgentPhase.READY) if laid_out is None else Remove(wanted=trial)
    if not serves(server, serving):
        return Idle(phase=AgentPhase.LOADING, message="it is tried beside the model that serves, once that does")
    if states - {"READY"}:
        return Idle(phase=AgentPhase.LOADING, message="Triton is loading the model under a name of its own")
    if laid_out != trial.layout_key:
        return LayOut(wanted=trial)
    if not serves(server, trial):
        return Load(wanted=trial)
    if changing.golden.due_at is not None and now < changing.golden.due_at:
        return Idle(phase=AgentPhase.LOADING, message="Triton was too busy to answer the golden set")
    return Replay(wanted=trial)


def _refusal(serving: Wanted, changing: Changing, disk: Disk, server: Server) -> str:
    """Why this pod cannot be changed to the other revision; empty where it can, as far as is known."""
    other = changing.other
    expected = other.expected_digest
    if other.fetch_key == serving.fetch_key and expected not in (None, serving.expected_digest):
        return (
            "both revisions have the same source, which has other files now; the one that serves could not be loaded "
            "again. Give the new version a place of its own"
        )
    if changing.refused:
        return changing.refused
    if changing.beside and is_composed(serving, other, disk, server):
        return COMPOSED
    return ""


COMPOSED = (
    "of several models that belong together, two revisions cannot be loaded beside each other, since they share the "
    "models' names"
)


def is_composed(serving: Wanted, other: Wanted, disk: Disk, server: Server) -> bool:
    """Whether either revision is known to be several models in the repository: an ensemble, or with further models."""
    if serving.assignment.models or other.assignment.models:
        return True
    for key in (serving.layout_key, other.layout_key):
        loaded = {v.name for v in server.versions if v.layout == key}
        laid_out = {name for name, layout in disk.layouts if layout == key}
        if len(loaded | laid_out) > 1:
            return True
    return False
