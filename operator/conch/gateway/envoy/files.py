"""The files that Envoy follows: whole, written beside and renamed, so that it never reads half of one."""

import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from conch.gateway.envoy import bootstrap, naming
from conch.gateway.envoy.bootstrap import TYPE_PREFIX
from conch.gateway.envoy.listener import to_json


class Kind(Enum):
    """What is in a file."""

    CLUSTERS = bootstrap.CLUSTERS_FILE
    ROUTES = bootstrap.ROUTES_FILE
    LISTENERS = bootstrap.LISTENERS_FILE


class ResourceFiles:
    """One file per kind; each resource is its JSON text, so that a change of one costs no rendering of the others."""

    def __init__(self, folder: Path) -> None:
        """`folder` lies on one volume, and nobody else writes there."""
        self._folder = folder

    def prepare(self) -> None:
        """Make those that are missing, without anything in them: Envoy does not start without its files."""
        for kind in Kind:
            path = self._folder / kind.value
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                self.write(kind, "none", {})

    def read(self, kind: Kind) -> dict[str, str]:
        """Resources by name, as they were last written; nothing if there is no file yet."""
        try:
            content = json.loads((self._folder / kind.value).read_text())
        except FileNotFoundError:
            return {}
        resources: list[dict[str, Any]] = content["resources"]
        if kind is Kind.ROUTES:
            resources = [host for each in resources for host in each["virtual_hosts"]]
        return {each["name"]: to_json(each) for each in resources}

    def write(self, kind: Kind, version: str, resources: Mapping[str, str]) -> None:
        """Replace the file; Envoy repeats the version once it does what is in it."""
        path = self._folder / kind.value
        fresh = self._folder / f"{path.name}.new"
        fresh.write_text(_content(kind, version, resources))
        fresh.rename(path)


def _content(kind: Kind, version: str, resources: Mapping[str, str]) -> str:
    texts = ",\n".join(resources[name] for name in sorted(resources))
    if kind is Kind.ROUTES:
        head = {
            "@type": TYPE_PREFIX + "envoy.config.route.v3.RouteConfiguration",
            "name": naming.ROUTE_CONFIGURATION,
            "vhost_header": naming.ROUTE_HEADER,
        }
        texts = f'{to_json(head)[:-1]},"virtual_hosts":[\n{texts}\n]}}'
    return f'{{"version_info":{json.dumps(version)},"resources":[\n{texts}\n]}}\n'
