"""What Triton says of itself, as decide.py wants to know it."""

from typing import Any, Final

from conch.agent.state import LoadedVersion, Server
from conch.triton.client import TritonClient
from conch.triton.config_pbtxt import loaded_layout
from conch.triton.ensemble import members
from conch.triton.errors import TritonRefusedError, TritonUnavailableError
from conch.triton.instances import instance_groups

_INTERESTING: Final = ("READY", "LOADING", "UNLOADING")


async def server_state(triton: TritonClient, *, examined: bool) -> Server:
    """What Triton says now; with `examined`, also of what is loaded from which layout. Never raises."""
    try:
        entries = await triton.index()
        versions = [
            LoadedVersion(name=e.name, version=e.version, state=e.state) for e in entries if e.state in _INTERESTING
        ]
        if examined:
            versions = [await _examined(triton, version) for version in versions]
        is_fresh = bool(entries) and not any(e.state for e in entries)
        return Server(live=True, versions=tuple(versions), is_fresh=is_fresh)
    except (TritonUnavailableError, TritonRefusedError):
        return Server()


async def _examined(triton: TritonClient, entry: LoadedVersion) -> LoadedVersion:
    if entry.state != "READY":
        return entry
    version = int(entry.version)
    config = await triton.config(entry.name, version)
    layout = loaded_layout(config)
    return LoadedVersion(
        name=entry.name,
        version=entry.version,
        state=entry.state,
        ready=await triton.version_ready(entry.name, version)
        and await _has_members(triton, config, layout, seen={entry.name}),
        layout=layout,
        instances=instance_groups(config),
    )


async def _has_members(triton: TritonClient, config: Any, layout: str | None, seen: set[str]) -> bool:
    """Whether what an ensemble is composed of answers, from the same layout: Triton does not ask for that.

    Each is asked once (`seen`), however many steps it is.
    """
    for name, version in members(config):
        if name in seen:
            continue
        seen.add(name)
        member = await triton.config(name, version)
        if loaded_layout(member) != layout or not await triton.version_ready(name, version):
            return False
        if not await _has_members(triton, member, layout, seen):
            return False
    return True
