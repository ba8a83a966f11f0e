"""What an agent does next: one pure function of what is wanted, on disk, in Triton, and what has failed.

Nothing is remembered but failures, and what the loaded model's golden set has shown. Whatever restarts (agent, Triton,
both, with or without the volume), the same question is asked again, and an answer that is already true leads to no
action.
"""

from conch.agent.preparing import is_composed, next_preparation
from conch.agent.state import Changing, Disk, Failure, Golden, Resizing, Server, running_instances, serves
from conch.agent.step_kinds import (
    CleanUp,
    Fetch,
    Idle,
    LayOut,
    Load,
    MakeWay,
    Preparing,
    Replay,
    Resize,
    Restore,
    Step,
    Unload,
)
from conch.agent.wanted import Wanted, private_name
from conch.api.agent_report import AgentPhase


def next_step(
    *,
    wanted: Wanted | None,
    disk: Disk,
    server: Server,
    failure: Failure | None,
    golden: Golden,
    resizing: Resizing,
    now: float,
    changing: Changing | None = None,
) -> Step:
    """The one thing to do now. A failure that waits for its retry holds back every action but serving on.

    What a change brings besides is prepared when there is nothing else to do.
    """
    if wanted is None:
        return Idle(phase=AgentPhase.STARTING, message="waiting for an assignment")
    if serves(server, wanted):
        step = _next_of_serving(wanted, disk, server, golden, resizing, changing, now)
    else:
        step = _next_towards(wanted, disk, server, failure, changing, now)
    if changing is None or not changing.prepares or not isinstance(step, Idle):
        return step
    preparation = next_preparation(serving=wanted, changing=changing, disk=disk, server=server, now=now)
    return Preparing(step=preparation, meanwhile=step)


def _next_of_serving(
    wanted: Wanted,
    disk: Disk,
    server: Server,
    golden: Golden,
    resizing: Resizing,
    changing: Changing | None,
    now: float,
) -> Step:
    """The assigned model serves: it is held against its golden set, gets its instances, and what is not needed goes."""
    trial = changing.trial if changing else None
    keys = {wanted.layout_key, *([trial.layout_key] if trial else [])}
    ours = {*_names_of(wanted, disk), *([trial.name] if trial else [])}
    foreign = [v for v in server.versions if v.layout not in keys and v.name not in ours]
    if stray := next((v.name for v in foreign if v.state == "READY"), None):
        return Unload(name=stray)
    if golden.due_at is not None and now >= golden.due_at:
        return Replay(wanted=wanted)
    digest = disk.fetched.get(wanted.fetch_key)
    is_laid_out = (wanted.name, wanted.layout_key) in disk.layouts
    if digest is not None and digest == wanted.expected_digest and not is_laid_out:
        return Restore(wanted=wanted)
    if resizing.due_at is not None and now >= resizing.due_at and not _has_its_instances(server, wanted):
        return Resize(wanted=wanted)
    kept = frozenset({changing.other.fetch_key} if changing else ())
    is_foreign = any(key not in keys for _, key in disk.layouts)
    if not foreign and (disk.fetched.keys() - {wanted.fetch_key} - kept or is_foreign):
        return CleanUp(wanted=wanted, kept=kept, kept_layout=trial.layout_key if trial else None)
    return Idle(phase=AgentPhase.READY)


def _next_towards(
    wanted: Wanted, disk: Disk, server: Server, failure: Failure | None, changing: Changing | None, now: float
) -> Step:
    """The assigned model does not serve yet, or not any more."""
    ours = _names_of(wanted, disk)
    if failure is not None and now < failure.retry_at:
        return Idle(phase=AgentPhase.FAILED, message=failure.message)
    if server.live and any(v.name in ours and v.state == "LOADING" for v in server.versions):
        # Whatever comes next, its files must not be taken away meanwhile.
        return Idle(phase=AgentPhase.LOADING, message="Triton is loading the model")
    fetch = Fetch(wanted=wanted, kept=frozenset({changing.other.fetch_key} if changing else ()))
    if failure is not None and failure.refetch:
        return fetch
    digest = disk.fetched.get(wanted.fetch_key)
    if digest is None:
        return fetch
    expected = wanted.expected_digest
    if expected is None:
        return Idle(phase=AgentPhase.FETCHED, message="waiting for the operator to pin what was fetched")
    if digest != expected:
        # Other bytes than the other replicas': perhaps the store has the right ones by now.
        return fetch
    if changing is not None and (step := _room_for(wanted, disk, server, changing)):
        return step
    if (wanted.name, wanted.layout_key) not in disk.layouts:
        return LayOut(wanted=wanted)
    if not server.live:
        return Idle(phase=AgentPhase.LOADING, message="waiting for Triton to start")
    if changing is not None and any(v.state == "UNLOADING" for v in server.versions):
        # What it holds would be in memory together with the new one.
        return Idle(phase=AgentPhase.LOADING, message="Triton unloads the model that was served")
    return Load(wanted=wanted)


def _room_for(wanted: Wanted, disk: Disk, server: Server, changing: Changing) -> Step | None:
    """What has to leave Triton before the assigned model is loaded; None: nothing any more."""
    ours = _names_of(wanted, disk)
    trial = private_name(wanted.assignment.name)
    tried = {v.state for v in server.versions if v.name == trial and trial not in ours}
    if "READY" in tried:
        return Unload(name=trial, phase=AgentPhase.LOADING)
    if tried:
        return Idle(phase=AgentPhase.LOADING, message="Triton unloads what was tried")
    if changing.beside and not is_composed(wanted, changing.other, disk, server):
        return None
    if any(v.state == "LOADING" for v in server.versions):
        return Idle(phase=AgentPhase.LOADING, message="Triton is loading the model that was to be served before")
    loaded = {v.name for v in server.versions if v.state == "READY" and v.layout != wanted.layout_key}
    if not loaded:
        return None
    # What is asked goes first, then what it is composed of.
    names = sorted(loaded, key=lambda name: (name != changing.other.name, name))
    return MakeWay(names=tuple(names))


def _names_of(wanted: Wanted, disk: Disk) -> set[str]:
    """Names in the repository that are the assigned model's."""
    return {wanted.name, *(model for model, key in disk.layouts if key == wanted.layout_key)}


def _has_its_instances(server: Server, wanted: Wanted) -> bool:
    running = running_instances(server, wanted)
    return wanted.assignment.instances is None if running is None else running.are(wanted.assignment.instances)
