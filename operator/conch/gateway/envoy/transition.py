"""From what Envoy does to what it is to do, without a moment in which a request has nowhere to go.

The order is: new clusters, routes to them, listeners; then the routes and clusters that nobody needs. What leaves is
kept while it may still be needed:

* a cluster that loses its last server keeps it until no route names it;
* virtual host and clusters of an object that left stay for a while, because clients that are connected still send;
* everything of an object that Envoy refuses stays as it was.
"""

import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Final

from conch.gateway.envoy.files import Kind
from conch.gateway.envoy.render import EnvoyConfig, ObjectConfig
from conch.gateway.routed import ObjectKey

_CLUSTER_IN_ROUTE: Final = re.compile(r'"name":"([^"/]+/[^"/]+/(?:http|grpc))"')


@dataclass(slots=True, kw_only=True)
class Transition:
    """One change; `stuck` grows when Envoy refuses something."""

    wanted: EnvoyConfig
    have: Mapping[Kind, Mapping[str, str]]
    """What Envoy does: the caller's, changed by it as Envoy acknowledges."""
    departing: Set[str]
    """Names of virtual hosts that nobody wants, and that stay for now."""
    stuck: set[ObjectKey] = field(default_factory=set)
    """Objects that stay as they are."""

    def clusters_added(self) -> dict[str, str]:
        """Nothing goes, and nothing loses its last server."""
        target = dict(self.have[Kind.CLUSTERS])
        for config in self._moving():
            target |= {
                name: text for name, text in config.clusters.items() if name not in config.empty or name not in target
            }
        return target

    def routes_changed(self) -> dict[str, str]:
        """Every object's new route, and what all share; nothing goes."""
        moving = {config.route: config.routes for config in self._moving()}
        return dict(self.have[Kind.ROUTES]) | moving | dict(self.wanted.shared_routes)

    def listeners(self) -> dict[str, str]:
        """Exactly those that are wanted."""
        stay = {config.route for config in self._stuck()}
        kept = {name: text for name, text in self.have[Kind.LISTENERS].items() if name in stay}
        return kept | {config.route: config.listener for config in self._moving()}

    def routes_left(self) -> dict[str, str]:
        """Without those of objects that left, once their time is over."""
        stay = self.wanted.routes.keys() | self.departing
        return {name: text for name, text in self.have[Kind.ROUTES].items() if name in stay}

    def clusters_left(self) -> dict[str, str]:
        """Exactly those that are wanted, and those that a route still names."""
        moving = {name: text for config in self._moving() for name, text in config.clusters.items()}
        stuck = self._stuck()
        stay = {name for config in stuck for name in config.clusters}
        kept = self.departing | {config.route for config in stuck}
        for name, text in self.have[Kind.ROUTES].items():
            if name in kept:
                stay.update(_CLUSTER_IN_ROUTE.findall(text))
        return {name: text for name, text in self.have[Kind.CLUSTERS].items() if name in stay} | moving

    def owners(self, kind: Kind, names: Iterable[str]) -> set[ObjectKey]:
        """The wanted objects that the resources belong to."""
        wanted = set(names)
        match kind:
            case Kind.CLUSTERS:
                return {key for key, config in self.wanted.objects.items() if wanted & config.clusters.keys()}
            case Kind.LISTENERS | Kind.ROUTES:
                return {key for key, config in self.wanted.objects.items() if config.route in wanted}

    def _moving(self) -> Iterable[ObjectConfig]:
        return (config for key, config in self.wanted.objects.items() if key not in self.stuck)

    def _stuck(self) -> list[ObjectConfig]:
        return [config for key, config in self.wanted.objects.items() if key in self.stuck]


def unwanted_routes(wanted: EnvoyConfig, have: Mapping[str, str]) -> set[str]:
    """Names of virtual hosts of objects that left."""
    return set(have) - wanted.routes.keys()
