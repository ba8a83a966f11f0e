"""The files that Envoy follows: whole, written beside and renamed, so that it never reads half of one."""

from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from conch.gateway.envoy import bootstrap, encoding, naming
from conch.gateway.envoy.listener import to_json


class Kind(Enum):
    """What is in a file."""

    CLUSTERS = bootstrap.CLUSTERS_FILE
    ROUTES = bootstrap.ROUTES_FILE
    LISTENERS = bootstrap.LISTENERS_FILE


class ResourceFiles:
    """One file per kind; each resource is encoded once, so that a change of one costs nothing for the others."""

    def __init__(self, folder: Path) -> None:
        """`folder` lies on one volume, and nobody else writes there."""
        self._folder = folder
        self._encoded: dict[Kind, dict[str, bytes]] = {kind: {} for kind in Kind}
        """What is in each file, by the text of the resource."""

    def prepare(self) -> None:
        """Make those that are missing, without anything in them: Envoy does not start without its files."""
        for kind in Kind:
            path = self._folder / kind.value
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                self.write(kind, "none", {})

    def read(self, kind: Kind) -> dict[str, str]:
        """Resources by name, as they were last written; nothing if there is no file yet.

        Their texts say the same as those that were written, in other words: numbers may be texts, for one.
        """
        try:
            content = (self._folder / kind.value).read_bytes()
        except FileNotFoundError:
            return {}
        resources = encoding.decode(content)
        if kind is Kind.ROUTES:
            return dict(part for each in resources for part in _route_parts(each))
        return {each["name"]: to_json(each) for each in resources}

    def write(self, kind: Kind, version: str, resources: Mapping[str, str]) -> None:
        """Replace the file; Envoy repeats the version once it does what is in it."""
        is_routes = kind is Kind.ROUTES
        encode = encoding.encode_route_part if is_routes else encoding.encode
        before = self._encoded[kind]
        encoded = {text: before.get(text) or encode(text) for _, text in sorted(resources.items())}
        compose = encoding.routes_response if is_routes else encoding.response
        path = self._folder / kind.value
        fresh = self._folder / f"{path.name}.new"
        fresh.write_bytes(compose(version, encoded.values()))
        fresh.rename(path)
        self._encoded[kind] = encoded


def _route_parts(configuration: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The parts that it was made of, by name."""
    for host in configuration.get("virtual_hosts", ()):
        yield host["name"], to_json({"virtual_hosts": [host]})
    if shared := configuration.get("typed_per_filter_config"):
        yield naming.CLIENTS, to_json({"typed_per_filter_config": shared})
