"""What is to be routed, from live objects and slices: only what is true, and never what a stranger claims."""

from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from conch.api import names
from conch.api.gateway import Gateway
from conch.gateway.projections import SLICE_CONTROLLER, is_reachable, project_object, project_slice
from conch.gateway.routed import Endpoint, RoutedShare, Snapshot
from conch.gateway.watch import ENDPOINTS_MOST, Watch
from conch.kube.client import KubeClient

OWN = "10.0.0.9"
SERVICE = names.workload_service("m", "w1")


def _object(**changes: Any) -> dict[str, Any]:
    status = {
        "desiredReplicas": 2,
        "gateway": {"port": 10_001, "generation": "g1"},
        "traffic": [{"revision": "r1", "workload": "w1", "weight": 100, "draining": ["p2"]}],
    }
    metadata = {"namespace": "ns", "name": "m", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": metadata, "spec": {}, "status": status} | changes


def _endpoint(pod: str, address: str, **conditions: bool) -> dict[str, Any]:
    target = {"kind": "Pod", "name": pod}
    return {"addresses": [address], "conditions": {"ready": True} | conditions, "targetRef": target}


def _workload_slice(*endpoints: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    labels = names.object_labels("m") | {
        names.LABEL_SERVICE: SERVICE,
        names.LABEL_SLICE_MANAGED_BY: SLICE_CONTROLLER,
    }
    owner = {"kind": "Service", "name": SERVICE, "controller": True}
    defaults = {"namespace": "ns", "name": f"{SERVICE}-x", "labels": labels, "ownerReferences": [owner]}
    return {"metadata": defaults | metadata, "endpoints": list(endpoints)}


def _public_slice(*addresses: str, service: str = "m") -> dict[str, Any]:
    labels = names.object_labels("m") | {
        names.LABEL_SERVICE: service,
        names.LABEL_SLICE_MANAGED_BY: names.SLICE_MANAGED_BY,
    }
    endpoints = [{"addresses": [address], "conditions": {"ready": True}} for address in addresses]
    return {"metadata": {"namespace": "ns", "name": "m-gateways", "labels": labels}, "endpoints": endpoints}


class Followed:
    """A watch that is told what happens, as its reflectors would."""

    def __init__(self) -> None:
        self.changes = 0
        self.watch = Watch(cast(KubeClient, None), own_address=OWN, on_change=self._changed)
        self._objects: dict[tuple[str, str], Any] = {}
        self._slices: dict[tuple[str, str], Any] = {}

    def _changed(self) -> None:
        self.changes += 1

    def put(self, live: dict[str, Any]) -> None:
        key = (live["metadata"]["namespace"], live["metadata"]["name"])
        after = project_object(live)
        self.watch.object_changed(key, self._objects.get(key), after)
        self._objects[key] = after

    def remove(self) -> None:
        self.watch.object_changed(("ns", "m"), self._objects.pop(("ns", "m")), None)

    def put_slice(self, live: dict[str, Any]) -> None:
        key = (live["metadata"]["namespace"], live["metadata"]["name"])
        after = project_slice(live)
        self.watch.slice_changed(key, self._slices.get(key), after)
        self._slices[key] = after

    def remove_slice(self, name: str) -> None:
        self.watch.slice_changed(("ns", name), self._slices.pop(("ns", name)), None)

    @property
    def snapshot(self) -> Snapshot:
        return self.watch.snapshot()


def test_an_object_is_routed_once_it_has_a_port() -> None:
    assert project_object(_object(status={"desiredReplicas": 1})) is None
    observed = project_object(_object(spec={"gateway": {"timeoutSeconds": 5}}))
    assert observed is not None
    assert observed.routed.port == 10_001
    assert observed.routed.generation == "g1"
    assert observed.routed.desired_replicas == 2
    assert observed.routed.gateway.timeout_seconds == 5
    assert observed.routed.shares == (RoutedShare(workload="w1", weight=100, draining=frozenset({"p2"})),)


def test_two_shares_in_the_same_pods_have_each_its_own() -> None:
    home = {"workload": "w1", "revision": "r1", "weight": 50, "draining": ["p2"]}
    guest = {"workload": "w2", "host": "w1", "pods": ["p2"], "revision": "r2", "weight": 50}
    whole = {"workload": "w3", "host": "w1", "revision": "r3", "weight": 0}
    observed = project_object(
        _object(status={"gateway": {"port": 10_001, "generation": "g1"}, "traffic": [home, guest, whole]})
    )
    assert observed is not None
    ready = frozenset(Endpoint(pod=name, address=f"10.0.0.{name[1]}") for name in ("p1", "p2", "p3"))
    snapshot = Snapshot(endpoints={("ns", "w1"): ready})
    served = [[each.pod for each in snapshot.servers(observed.routed, share)] for share in observed.routed.shares]
    assert served == [["p1", "p3"], ["p2"], ["p1", "p2", "p3"]]


@pytest.mark.parametrize(
    ("spec", "wakes"),
    [
        ({}, False),
        ({"replicas": 0}, False),
        ({"autoscaling": None}, False),
        # It may just have been edited, with nothing running yet.
        ({"autoscaling": {"maxReplicas": 3}}, True),
        ({"autoscaling": {"minReplicas": 1, "maxReplicas": 3}}, True),
        ({"autoscaling": {"minReplicas": 0, "maxReplicas": 3}}, True),
        ({"autoscaling": {"minReplicas": 0, "maxReplicas": 3, "paused": True}}, True),
        ({"autoscaling": {"minReplicas": 0, "maxReplicas": 3}, "suspend": True}, False),
        ({"autoscaling": {"minReplicas": 0, "maxReplicas": 3}, "suspend": False}, True),
        ({"autoscaling": {"minReplicas": 0, "ofTomorrow": 1}}, True),
    ],
)
def test_a_request_wakes_what_the_operator_scales_to_zero_and_nothing_else(spec: dict[str, Any], wakes: bool) -> None:
    observed = project_object(_object(spec=spec))
    assert observed is not None
    assert observed.routed.wakes is wakes


def test_a_model_that_may_be_woken_from_now_on_is_another_snapshot() -> None:
    followed = Followed()
    followed.put(_object(spec={"replicas": 0}))
    before, changes = followed.snapshot, followed.changes
    followed.put(_object(spec={"autoscaling": {"minReplicas": 0, "maxReplicas": 3}}))
    assert followed.changes == changes + 1
    assert followed.snapshot != before


def test_settings_that_cannot_be_read_leave_those_in_use() -> None:
    followed = Followed()
    followed.put(_object(spec={"gateway": {"timeoutSeconds": 5}}))
    followed.put(_object(spec={"gateway": {"timeoutSeconds": 7, "ofTomorrow": 1}}))
    assert followed.snapshot.objects["ns", "m"].gateway.timeout_seconds == 5
    namesake = _object(spec={"gateway": {"ofTomorrow": 1}})
    namesake["metadata"] = namesake["metadata"] | {"uid": "u2"}
    followed.put(namesake)
    assert followed.snapshot.objects["ns", "m"].gateway == Gateway()


def test_what_of_a_status_cannot_be_read_is_left_out() -> None:
    live = _object()
    live["status"]["traffic"].append({"revision": "r2", "workload": "w2", "weight": 10_000})
    live["status"]["ofTomorrow"] = {"x": 1}
    observed = project_object(live)
    assert observed is not None
    assert observed.routed.shares[0].workload == "w1"


def test_servers_are_those_that_the_slices_of_the_own_service_call_ready() -> None:
    followed = Followed()
    # The slice may come first.
    followed.put_slice(
        _workload_slice(
            _endpoint("p1", "10.0.0.1"),
            _endpoint("p2", "fd00::2"),
            _endpoint("p3", "10.0.0.3", ready=False),
            _endpoint("p4", "10.0.0.4", terminating=True),
            {"addresses": ["10.0.0.5"], "conditions": {"ready": True}},
        )
    )
    assert followed.changes == 0
    followed.put(_object())
    assert followed.snapshot.endpoints == {
        ("ns", "w1"): {Endpoint(pod="p1", address="10.0.0.1"), Endpoint(pod="p2", address="fd00::2")}
    }
    followed.put_slice(_workload_slice(_endpoint("p6", "10.0.0.6"), name=f"{SERVICE}-y"))
    assert len(followed.snapshot.endpoints["ns", "w1"]) == 3
    followed.remove_slice(f"{SERVICE}-x")
    assert followed.snapshot.endpoints == {("ns", "w1"): {Endpoint(pod="p6", address="10.0.0.6")}}
    followed.remove()
    assert followed.snapshot == Snapshot()
    followed.put(_object())
    assert len(followed.snapshot.endpoints["ns", "w1"]) == 1


@pytest.mark.parametrize(
    "metadata",
    [
        {"ownerReferences": []},
        {"ownerReferences": [{"kind": "Service", "name": SERVICE}]},
        {"ownerReferences": [{"kind": "Service", "name": "other", "controller": True}]},
        {"ownerReferences": [{"kind": "Endpoints", "name": SERVICE, "controller": True}]},
        {
            "labels": names.object_labels("m")
            | {
                names.LABEL_SERVICE: SERVICE,
                names.LABEL_SLICE_MANAGED_BY: "endpointslicemirroring-controller.k8s.io",
            }
        },
        {"labels": names.object_labels("m") | {names.LABEL_SERVICE: SERVICE}},
    ],
)
def test_slices_that_kubernetes_did_not_make_of_the_service_count_for_nothing(metadata: dict[str, Any]) -> None:
    assert project_slice(_workload_slice(_endpoint("p1", "10.0.0.1"), **metadata)) is None


def test_a_slice_of_another_namespace_reaches_nothing_here() -> None:
    followed = Followed()
    followed.put(_object())
    followed.put_slice(_workload_slice(_endpoint("p1", "10.0.0.1"), namespace="evil"))
    assert followed.snapshot.endpoints == {}


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1", "::", "224.0.0.1", "name"],
)
def test_no_server_is_the_gateway_itself_or_its_node(address: str) -> None:
    assert not is_reachable(address)
    followed = Followed()
    followed.put(_object())
    followed.put_slice(_workload_slice(_endpoint("p1", address)))
    assert followed.snapshot.endpoints == {}


@pytest.mark.parametrize("address", [OWN, f"::ffff:{OWN}"])
def test_a_pod_that_has_the_gateways_own_address_is_no_server(address: str) -> None:
    followed = Followed()
    followed.put(_object())
    followed.put_slice(_workload_slice(_endpoint("p1", address), _endpoint("p2", "10.0.0.2")))
    assert followed.snapshot.endpoints == {("ns", "w1"): {Endpoint(pod="p2", address="10.0.0.2")}}


def test_of_more_servers_than_it_can_take_a_gateway_keeps_the_same_ones_and_says_so_once() -> None:
    followed = Followed()
    followed.put(_object())
    endpoints = [_endpoint(f"p{n:04}", f"10.1.{n // 256}.{n % 256}") for n in range(ENDPOINTS_MOST + 5)]
    with capture_logs() as logs:
        followed.put_slice(_workload_slice(*endpoints))
        followed.put_slice(_workload_slice(*endpoints[1:]))
    kept = {each.pod for each in followed.snapshot.endpoints["ns", "w1"]}
    assert kept == {f"p{n:04}" for n in range(1, ENDPOINTS_MOST + 1)}
    assert [each["servers"] for each in logs] == [ENDPOINTS_MOST + 5]


def test_public_slices_tell_how_many_gateways_there_are_and_whether_this_is_one() -> None:
    followed = Followed()
    followed.put_slice(_public_slice("10.0.0.8", OWN))
    assert followed.snapshot.gateways == {("ns", "m"): 2}
    assert followed.watch.listed == 1
    followed.put_slice(_public_slice("10.0.0.8"))
    assert (followed.snapshot.gateways, followed.watch.listed) == ({("ns", "m"): 1}, 0)
    followed.put_slice(_public_slice(OWN, service="other"))
    assert (followed.snapshot.gateways, followed.watch.listed) == ({}, 0)


def test_nothing_new_is_no_change_and_the_same_snapshot() -> None:
    followed = Followed()
    followed.put(_object())
    followed.put_slice(_workload_slice(_endpoint("p1", "10.0.0.1")))
    changes, snapshot = followed.changes, followed.snapshot
    followed.put(_object())
    followed.put_slice(_workload_slice(_endpoint("p1", "10.0.0.1"), labels=_workload_slice()["metadata"]["labels"]))
    followed.put_slice(_workload_slice(_endpoint("p1", "10.0.0.1"), name=f"{SERVICE}-y"))
    assert followed.changes == changes
    assert followed.snapshot is snapshot
