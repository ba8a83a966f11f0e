"""What Envoy is told, as a pure function of a snapshot."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.api.gateway import Gateway, Hold, Retries
from conch.api.shadow import Shadow
from conch.gateway.clients import Client
from conch.gateway.envoy import naming
from conch.gateway.envoy.admission import Admission
from conch.gateway.envoy.bootstrap import BootstrapOptions, render_bootstrap
from conch.gateway.envoy.external_authorization import ExternalAuthorization
from conch.gateway.envoy.files import Kind, ResourceFiles
from conch.gateway.envoy.listener import AccessLog, ListenerOptions
from conch.gateway.envoy.naming import ClusterId, Protocol
from conch.gateway.envoy.render import EnvoyConfig, Renderer, RenderOptions, render
from conch.gateway.routed import Endpoint, RoutedObject, RoutedShare, Snapshot
from tests.conftest import Golden
from tests.support.snapshots import snapshots

OPTIONS = RenderOptions()
SERVICE = ExternalAuthorization(
    host="authz.security.svc", port=9000, timeout_milliseconds=250, tls=True, ca_file=Path("/ca/ca.crt")
)
GUARDED = RenderOptions(listener=ListenerOptions(tls=True, admission=Admission(api_keys=True, authorization=SERVICE)))
CLIENTS = (
    Client(name="batch", key="key-of-batch-0123456789"),
    Client(name="web", key="key-of-web-0123456789", namespaces=("shop", "vision")),
)
GOLDEN = Path(__file__).parents[1] / "golden" / "gateway"


def typical() -> Snapshot:
    """Two versions beside each other, one pod about to leave, two gateways."""
    shares = (
        RoutedShare(workload="aaaa1111", weight=90, draining=frozenset({"old-2"})),
        RoutedShare(workload="bbbb2222", weight=10),
    )
    object_ = RoutedObject(
        namespace="vision",
        name="classifier",
        uid="11111111-2222-3333-4444-555555555555",
        created="2026-01-01T00:00:00Z",
        port=10_007,
        generation="g7",
        gateway=Gateway(timeout_seconds=30, max_in_flight=65),
        shares=shares,
        desired_replicas=2,
    )
    endpoints = {
        ("vision", "aaaa1111"): frozenset(
            {Endpoint(pod="old-1", address="10.0.0.1"), Endpoint(pod="old-2", address="10.0.0.2")}
        ),
        ("vision", "bbbb2222"): frozenset({Endpoint(pod="new-1", address="10.0.0.3")}),
    }
    return Snapshot(objects={object_.key: object_}, endpoints=endpoints, gateways={object_.key: 2})


def changed(snapshot: Snapshot, **fields: Any) -> Snapshot:
    """With other fields of its one object."""
    (object_,) = snapshot.objects.values()
    return replace(snapshot, objects={object_.key: replace(object_, **fields)})


def host_of(part: str) -> dict[str, Any]:
    """The virtual host that an object's part of the routes consists of."""
    (host,) = json.loads(part)["virtual_hosts"]
    assert isinstance(host, dict)
    return host


def routes_of(config: EnvoyConfig, name: str = "vision.classifier") -> list[dict[str, Any]]:
    routes: list[dict[str, Any]] = host_of(config.routes[name])["routes"]
    return routes


def clusters_named(part: str) -> set[str]:
    return {
        cluster["name"]
        for route in host_of(part)["routes"]
        for cluster in route.get("route", {}).get("weighted_clusters", {}).get("clusters", ())
    }


def is_held(part: str) -> bool:
    return "typed_per_filter_config" not in host_of(part)


def test_a_typical_object(golden: Golden) -> None:
    config = render(typical(), RenderOptions(listener=ListenerOptions(access_log=AccessLog.JSON)))
    whole = {
        "listeners": [json.loads(text) for text in config.listeners.values()],
        "virtual_hosts": [host_of(text) for text in config.routes.values()],
        "clusters": [json.loads(text) for text in config.clusters.values()],
    }
    golden(GOLDEN / "typical.json", json.dumps(whole, indent=1, sort_keys=True) + "\n")


def test_a_guarded_object(golden: Golden) -> None:
    """TLS, API keys, and an authorisation service: what all listeners and routes have besides."""
    config = render(replace(typical(), clients=CLIENTS), GUARDED)
    (listener,) = map(json.loads, config.listeners.values())
    plain = json.loads(render(typical(), OPTIONS).listeners["vision.classifier"])
    manager, plain_manager = (each["filter_chains"][0]["filters"][1]["typed_config"] for each in (listener, plain))
    # Nothing may come before them but what makes sure whom a request is for.
    plain_filters = plain_manager["http_filters"]
    assert manager["http_filters"][-len(plain_filters) :] == plain_filters
    chain = {key: value for key, value in listener["filter_chains"][0].items() if key != "filters"}
    mappers, plain_mappers = (each["local_reply_config"]["mappers"] for each in (manager, plain_manager))
    assert [each for each in mappers if each in plain_mappers] == plain_mappers
    whole = {
        "transport": chain,
        "http_filters": manager["http_filters"][: -len(plain_filters)],
        "local_replies": [each for each in mappers if each not in plain_mappers],
        "shared_routes": json.loads(config.routes[naming.CLIENTS]),
        "clusters": json.loads(render_bootstrap(BootstrapOptions(gateway="gateway-1", authorization=SERVICE)))[
            "static_resources"
        ]["clusters"][1:],
    }
    golden(GOLDEN / "guarded.json", json.dumps(whole, indent=1, sort_keys=True) + "\n")


def shadowed(*, stable: bool = True, candidate: bool = True) -> Snapshot:
    """One version that serves, and one that gets copies of a fifth of the requests; each may be without servers."""
    snapshot = typical()
    shares = (
        RoutedShare(workload="aaaa1111", weight=100),
        RoutedShare(workload="bbbb2222", weight=0, shadow=Shadow(percent=20).share),
    )
    there = {"aaaa1111": stable, "bbbb2222": candidate}
    endpoints = {key: each for key, each in snapshot.endpoints.items() if there[key[1]]}
    return replace(changed(snapshot, shares=shares), endpoints=endpoints)


def mirrors(config: EnvoyConfig) -> list[dict[str, Any]]:
    return [route for route in routes_of(config) if "request_mirror_policies" in route.get("route", {})]


def test_copies_are_made_of_unary_inference_alone(golden: Golden) -> None:
    config = render(shadowed(), OPTIONS)
    golden(GOLDEN / "shadowed.json", json.dumps(routes_of(config), indent=1, sort_keys=True) + "\n")
    assert len(mirrors(config)) == 2
    # Clients' requests go where they went.
    plain = render(changed(shadowed(), shares=(RoutedShare(workload="aaaa1111", weight=100),)), OPTIONS)
    assert [route for route in routes_of(config) if route not in mirrors(config)] == routes_of(plain)
    for route in mirrors(config):
        assert {name: value for name, value in route["route"].items() if name != "request_mirror_policies"} in [
            each["route"] for each in routes_of(plain)
        ]
    assert config.listeners == plain.listeners


def test_nothing_is_copied_for_nobody_or_while_requests_are_held() -> None:
    assert mirrors(render(shadowed(candidate=False), OPTIONS)) == []
    held = render(shadowed(stable=False), OPTIONS)
    assert mirrors(held) == []
    assert is_held(held.routes["vision.classifier"]), "who has not proven itself does not stand in for others"


def test_other_clients_change_no_listener_and_no_virtual_host() -> None:
    before = render(replace(typical(), clients=CLIENTS), GUARDED)
    after = render(replace(typical(), clients=CLIENTS[:1]), GUARDED)
    assert before.listeners == after.listeners
    assert {name for name, text in after.routes.items() if before.routes[name] != text} == {naming.CLIENTS}


def test_without_a_known_client_the_routes_say_that_nobody_is_let_in() -> None:
    config = render(replace(typical(), clients=()), GUARDED)
    shared = json.loads(config.routes[naming.CLIENTS])["typed_per_filter_config"]
    assert shared["envoy.filters.http.api_key_auth"]["credentials"] == []
    assert naming.CLIENTS not in render(typical(), OPTIONS).routes


@given(snapshots())
def test_the_same_snapshot_is_the_same_bytes_whatever_was_rendered_before(snapshot: Snapshot) -> None:
    renderer = Renderer(OPTIONS)
    renderer.render(typical())
    assert renderer.render(snapshot) == renderer.render(snapshot) == render(snapshot, OPTIONS)


@given(snapshots())
def test_a_listener_depends_on_nothing_but_identity_and_port(snapshot: Snapshot) -> None:
    config = render(snapshot, OPTIONS)
    bare = Snapshot(
        objects={
            key: RoutedObject(
                namespace=each.namespace,
                name=each.name,
                uid="another",
                created="2000",
                port=each.port,
                generation="",
                gateway=Gateway(),
                shares=(),
                desired_replicas=0,
            )
            for key, each in snapshot.objects.items()
            if key in config.objects
        }
    )
    assert render(bare, OPTIONS).listeners == config.listeners


@given(snapshots())
def test_routes_name_only_clusters_that_are_there_and_none_without_servers_unless_requests_are_held(
    snapshot: Snapshot,
) -> None:
    config = render(snapshot, OPTIONS)
    empty = {name for each in config.objects.values() for name in each.empty}
    for key, each in config.objects.items():
        named = clusters_named(each.routes)
        assert named <= config.clusters.keys()
        servers = [snapshot.servers(snapshot.objects[key], share) for share in snapshot.objects[key].shares]
        assert is_held(each.routes) == (not any(servers))
        if not is_held(each.routes):
            assert named
            assert not named & empty


@given(snapshots())
def test_every_object_is_routed_or_told_why_not_and_no_two_share_a_port(snapshot: Snapshot) -> None:
    config = render(snapshot, OPTIONS)
    assert {*config.objects, *config.problems} == set(snapshot.objects)
    ports = [json.loads(text)["address"]["socket_address"]["port_value"] for text in config.listeners.values()]
    assert len(ports) == len(set(ports))
    for key in config.problems:
        assert naming.unfit_name(snapshot.objects[key]) is not None or "belongs to" in config.problems[key]


LABELS = st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?\Z")
WORDS = LABELS | st.text()


@given(WORDS, WORDS, WORDS)
def test_a_name_that_could_be_mistaken_for_another_is_never_rendered(namespace: str, name: str, workload: str) -> None:
    (object_,) = typical().objects.values()
    hostile = replace(object_, namespace=namespace, name=name, shares=(RoutedShare(workload=workload, weight=100),))
    config = render(Snapshot(objects={hostile.key: hostile}), OPTIONS)
    assert bool(config.objects) == all(naming.is_label(text) for text in (namespace, name, workload))


@given(LABELS, LABELS, st.sampled_from(Protocol), st.sampled_from(["upstream_rq_total", "grpc.13"]))
def test_a_statistic_leads_back_to_its_workload(namespace: str, workload: str, protocol: Protocol, stat: str) -> None:
    cluster = ClusterId(namespace=namespace, workload=workload, protocol=protocol)
    assert naming.parse_cluster(str(cluster)) == cluster
    assert naming.parse_cluster_stat(f"cluster.{cluster}.{stat}") == (cluster, stat)
    assert naming.parse_route_stat(f"http.{namespace}.{workload}.{stat}") == ((namespace, workload), stat)


@pytest.mark.parametrize("stat", ["cluster.hold.upstream_rq_total", "http.admin.downstream_rq_total", "server.uptime"])
def test_statistics_of_envoy_itself_are_nobodys(stat: str) -> None:
    assert naming.parse_cluster_stat(stat) is None
    assert naming.parse_route_stat(stat) is None


def test_of_two_objects_that_claim_a_port_the_older_has_it() -> None:
    snapshot = typical()
    (older,) = snapshot.objects.values()
    younger = replace(older, namespace="a-team", uid="0", created="2026-02-01T00:00:00Z")
    config = render(replace(snapshot, objects={younger.key: younger, older.key: older}), OPTIONS)
    assert list(config.listeners) == ["vision.classifier"]
    assert config.problems == {younger.key: "port 10007 belongs to vision/classifier, which is older"}


def test_a_pod_that_is_about_to_leave_gets_nothing() -> None:
    config = render(typical(), OPTIONS)
    assert "10.0.0.1" in config.clusters["vision/aaaa1111/http"]
    assert "10.0.0.2" not in config.clusters["vision/aaaa1111/http"]


def test_a_version_that_only_finishes_goes_on_while_it_alone_has_servers() -> None:
    shares = (RoutedShare(workload="aaaa1111", weight=0), RoutedShare(workload="cccc3333", weight=100))
    config = render(changed(typical(), shares=shares), OPTIONS)
    host = config.routes["vision.classifier"]
    assert clusters_named(host) == {"vision/aaaa1111/http", "vision/aaaa1111/grpc"}
    assert not is_held(host)
    assert config.objects["vision", "classifier"].waits_for == "no server of workload cccc3333 is ready"


def test_a_held_request_goes_where_its_permission_says() -> None:
    for route in routes_of(render(replace(typical(), endpoints={}), OPTIONS)):
        assert route["route"]["cluster_header"] == naming.CLUSTER_HEADER
        assert "weighted_clusters" not in route["route"]


def test_an_object_without_any_workload_still_listens_and_holds() -> None:
    config = render(changed(typical(), shares=()), OPTIONS)
    assert is_held(config.routes["vision.classifier"])
    assert "vision.classifier" in config.listeners


def test_streams_have_no_time_limit_and_everything_else_has() -> None:
    timeouts = [route["route"]["timeout"] for route in routes_of(render(typical(), OPTIONS))]
    assert timeouts == ["0s", "30s", "0s", "30s"]


@pytest.mark.parametrize(("held", "most"), [(False, "30s"), (True, "75s")])
def test_a_grpc_request_lasts_as_long_as_an_answer_and_where_it_is_held_that_long_more(held: bool, most: str) -> None:
    snapshot = changed(typical(), gateway=Gateway(timeout_seconds=30, hold=Hold(seconds=45)))
    unary = routes_of(render(replace(snapshot, endpoints={}) if held else snapshot, OPTIONS))[1]
    assert unary["route"]["max_stream_duration"] == {"max_stream_duration": most, "grpc_timeout_header_max": most}


@pytest.mark.parametrize(
    ("retries", "has_policy", "replays"),
    [(None, True, False), (Retries(attempts=0), False, False), (Retries(attempts=3, replay=True), True, True)],
)
def test_a_request_that_may_have_run_is_repeated_only_if_the_model_allows_it(
    retries: Retries | None, has_policy: bool, replays: bool
) -> None:
    config = render(changed(typical(), gateway=Gateway(retries=retries)), OPTIONS)
    policy = host_of(config.routes["vision.classifier"]).get("retry_policy")
    assert bool(policy) == has_policy
    if policy:
        assert ("reset" in policy["retry_on"].split(",")) == replays


def test_the_gateways_share_the_limit_of_requests_in_flight() -> None:
    limits = json.loads(render(typical(), OPTIONS).clusters["vision/aaaa1111/grpc"])["circuit_breakers"]["thresholds"]
    assert limits[0]["max_requests"] == 33


@pytest.mark.parametrize("guarded", [False, True])
def test_what_is_read_back_is_for_envoy_what_was_written(tmp_path: Path, guarded: bool) -> None:
    options = RenderOptions(listener=ListenerOptions(access_log=AccessLog.JSON))
    config = render(replace(typical(), clients=CLIENTS), GUARDED) if guarded else render(typical(), options)
    files = ResourceFiles(tmp_path)
    files.prepare()
    for kind, resources in (
        (Kind.CLUSTERS, config.clusters),
        (Kind.ROUTES, config.routes),
        (Kind.LISTENERS, config.listeners),
    ):
        assert files.read(kind) == {}
        files.write(kind, "v1", resources)
        content = (tmp_path / kind.value).read_bytes()
        files.prepare()
        assert (tmp_path / kind.value).read_bytes() == content, "what is there stays"
        read = ResourceFiles(tmp_path).read(kind)
        assert read.keys() == resources.keys()
        ResourceFiles(tmp_path).write(kind, "v1", read)
        assert (tmp_path / kind.value).read_bytes() == content
