"""Snapshots as hypothesis makes them: sane and hostile names, claimed ports, workloads with and without servers."""

from hypothesis import strategies as st

from conch.api.gateway import Gateway, Hold, Retries
from conch.gateway.routed import Endpoint, RoutedObject, RoutedShare, Snapshot

NAMES = st.sampled_from(["a", "b", "a-b", "resnet50", "x" * 40])
NAMESPACES = st.sampled_from(["team", "a", "a-b", "n" * 63])
_HOSTILE = st.sampled_from(["", "a.b", "a/b", "a/http", 'x"', "*", "A", "a\n", "ä", "-"])
_WORKLOADS = st.sampled_from([f"{number:08x}" for number in range(6)])
_SERVERS = st.frozensets(
    st.builds(
        Endpoint, pod=st.sampled_from(["p1", "p2", "p3"]), address=st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"])
    ),
    max_size=3,
)
_GATEWAYS = st.builds(
    Gateway,
    timeout_seconds=st.none() | st.integers(1, 86_400),
    max_in_flight=st.none() | st.integers(1, 1_000_000),
    retries=st.none() | st.builds(Retries, attempts=st.integers(0, 10), replay=st.booleans()),
    hold=st.none() | st.builds(Hold, seconds=st.integers(0, 3600)),
)
_DRAINING = st.frozensets(st.sampled_from(["p1", "p2", "p3"]), max_size=2)


def snapshots(*, hostile: bool = True, most: int = 5) -> st.SearchStrategy[Snapshot]:
    """Of at most so many objects."""
    names = NAMES | _HOSTILE if hostile else NAMES
    shares = st.lists(
        st.builds(
            RoutedShare,
            workload=_WORKLOADS | _HOSTILE if hostile else _WORKLOADS,
            weight=st.integers(0, 100),
            draining=_DRAINING,
        ),
        max_size=3,
        unique_by=lambda share: share.workload,
    )
    objects = st.lists(
        st.builds(
            RoutedObject,
            namespace=NAMESPACES,
            name=names,
            uid=st.uuids().map(str),
            created=st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]),
            port=st.integers(10_000, 10_003),
            generation=st.text(max_size=8),
            gateway=_GATEWAYS,
            shares=shares.map(tuple),
            desired_replicas=st.integers(0, 3),
        ),
        max_size=most,
        unique_by=lambda each: each.key,
    )
    return st.builds(
        _snapshot,
        objects,
        st.dictionaries(st.tuples(NAMESPACES, _WORKLOADS), _SERVERS, max_size=8),
        st.integers(1, 4),
    )


def _snapshot(
    objects: list[RoutedObject], endpoints: dict[tuple[str, str], frozenset[Endpoint]], gateways: int
) -> Snapshot:
    return Snapshot(
        objects={each.key: each for each in objects},
        endpoints=endpoints,
        gateways={each.key: gateways for each in objects},
    )
