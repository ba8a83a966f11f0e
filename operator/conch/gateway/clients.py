"""Who may call models: from the entries of a Secret to clients, each with its key."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

KEY_LENGTH_LEAST: Final = 16
KEY_LENGTH_MOST: Final = 512
CLIENTS_MOST: Final = 1000
"""Envoy compares a client that is limited to namespaces with every other such one."""

_KEY: Final = re.compile(r"[!-~]+")
_NAME: Final = re.compile(r"[-._A-Za-z0-9]{1,253}")
_NAMESPACES: Final = "namespaces:"
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Client:
    """One entry of the Secret."""

    name: str
    key: str = field(repr=False)
    namespaces: tuple[str, ...] | None = None
    """Those whose models it may call; None for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """What a Secret says."""

    known: tuple[Client, ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)
    """Entries that let nobody in, and why; never with what is in them."""


def parse_clients(entries: Mapping[str, bytes]) -> Clients:
    """What is not exactly as it must be lets nobody in, and keeps nobody else out.

    An entry is the client's key, and perhaps a second line that limits it: `namespaces: team-a team-b`.
    """
    problems: dict[str, str] = {}
    parsed: list[Client] = []
    for name, content in sorted(entries.items()):
        client = _parse(name, content)
        if isinstance(client, Client):
            parsed.append(client)
        else:
            problems[name] = client
    uses = Counter(client.key for client in parsed)
    # Whose request it is must be certain, and which of them is meant nobody can tell.
    problems |= {client.name: "another entry has the same key" for client in parsed if uses[client.key] > 1}
    known = [client for client in parsed if uses[client.key] == 1]
    problems |= {client.name: f"more than {CLIENTS_MOST} entries" for client in known[CLIENTS_MOST:]}
    return Clients(known=tuple(known[:CLIENTS_MOST]), problems=dict(sorted(problems.items())))


def _parse(name: str, content: bytes) -> Client | str:
    """The client, or why there is none."""
    if not _NAME.fullmatch(name):
        return "its name is not one that a Secret's entry can have"
    try:
        key, *limits = content.decode("ascii").strip().splitlines()
    except UnicodeDecodeError:
        return "it is not plain ASCII"
    except ValueError:
        return "it is empty"
    key = key.rstrip()
    if not _KEY.fullmatch(key):
        return "its key holds spaces or characters that cannot be printed"
    if not KEY_LENGTH_LEAST <= len(key) <= KEY_LENGTH_MOST:
        return f"its key has {len(key)} characters; {KEY_LENGTH_LEAST} to {KEY_LENGTH_MOST} are allowed"
    if not limits:
        return Client(name=name, key=key)
    line, *more = limits
    namespaces = line.removeprefix(_NAMESPACES).replace(",", " ").split()
    if more or not line.startswith(_NAMESPACES) or not namespaces or not all(map(_NAMESPACE.fullmatch, namespaces)):
        return f"what follows its key is not one line `{_NAMESPACES} NAME NAME ...`"
    return Client(name=name, key=key, namespaces=tuple(sorted(set(namespaces))))
