"""What Envoy is given, in which order, and what is said of it; Envoy is a recorder that may refuse."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from conch.api.gateway import Gateway
from conch.gateway.envoy.delivery import Refusal
from conch.gateway.envoy.files import Kind
from conch.gateway.envoy.render import Renderer, RenderOptions
from conch.gateway.routed import Endpoint, ObjectKey, RoutedObject, RoutedShare, Snapshot
from conch.gateway.sync import RouteState, Synchroniser, SyncTimes
from tests.support.virtual_time import run_virtually, virtual_now

KEY = ("team", "a")
ONE = frozenset({Endpoint(pod="p1", address="10.0.0.1")})
TWO = ONE | {Endpoint(pod="p2", address="10.0.0.2")}


def an_object(name: str = "a", *, port: int = 10_000, generation: str = "g1", **weights: int) -> RoutedObject:
    shares = tuple(RoutedShare(workload=workload, weight=weight) for workload, weight in weights.items())
    return RoutedObject(
        namespace="team",
        name=name,
        uid=f"uid-{name}",
        created=f"2026-01-01T00:00:00Z-{name}",
        port=port,
        generation=generation,
        gateway=Gateway(),
        shares=shares,
        desired_replicas=1,
    )


def snapshot(*objects: RoutedObject, **endpoints: frozenset[Endpoint]) -> Snapshot:
    return Snapshot(
        objects={each.key: each for each in objects},
        endpoints={("team", workload): servers for workload, servers in endpoints.items()},
    )


@dataclass
class Recorder:
    """An Envoy that takes everything, but for what `refuses` says."""

    files: dict[Kind, dict[str, str]] = field(default_factory=lambda: {kind: {} for kind in Kind})
    given: list[tuple[Kind, dict[str, str]]] = field(default_factory=list)
    refuses: Callable[[Kind, str, str], bool] = lambda _kind, _name, _text: False
    names_culprits: bool = True
    restarted: bool = False
    answers: asyncio.Event | None = None
    holds_back: Kind | None = None
    warms: frozenset[str] = frozenset()

    def delivered(self, kind: Kind) -> dict[str, str]:
        return dict(self.files[kind])

    async def deliver(self, kind: Kind, resources: Mapping[str, str], *, changed: Set[str]) -> Refusal | None:
        assert changed <= set(resources)
        if kind is self.holds_back:
            await asyncio.Event().wait()
        if self.answers:
            await self.answers.wait()
        self.given.append((kind, dict(resources)))
        self.files[kind] = dict(resources)
        culprits = {name: "no!" for name, text in resources.items() if self.refuses(kind, name, text)}
        if not culprits:
            self._must_be_consistent()
            return None
        return Refusal(named=culprits if self.names_culprits else {})

    async def warming(self) -> Set[str]:
        return self.warms & set(self.files[Kind.CLUSTERS])

    async def has_restarted(self) -> bool:
        restarted, self.restarted = self.restarted, False
        return restarted

    def _must_be_consistent(self) -> None:
        """At no moment does a listener lack its route, or a route name a cluster that is not there or empty."""
        for name in self.files[Kind.LISTENERS]:
            assert name in self.files[Kind.ROUTES]
        for route in self.files[Kind.ROUTES].values():
            for name in route.split('"name":"'):
                cluster = name.split('"')[0]
                if cluster.endswith(("/http", "/grpc")):
                    assert cluster in self.files[Kind.CLUSTERS], cluster
                    assert '"address"' in self.files[Kind.CLUSTERS][cluster] or "disabled" not in route, cluster

    def kinds(self) -> list[Kind]:
        return [kind for kind, _ in self.given]


class Stage:
    """A running synchroniser in virtual time."""

    def __init__(self, envoy: Recorder, **times: float) -> None:
        self.envoy = envoy
        self.told: list[ObjectKey] = []
        self.sync = Synchroniser(
            Renderer(RenderOptions()),
            envoy,
            clock=virtual_now,
            on_change=self.told.append,
            times=SyncTimes(**times),
        )

    async def do(self, wanted: Snapshot, seconds: float = 0.2) -> RouteState:
        self.envoy.given.clear()
        self.sync.want(wanted)
        await asyncio.sleep(seconds)
        return self.sync.state(KEY)


def on_stage(play: Callable[[Stage], Coroutine[Any, Any, None]], envoy: Recorder | None = None) -> None:
    async def main() -> None:
        stage = Stage(envoy or Recorder())
        task = asyncio.create_task(stage.sync.run())
        try:
            await play(stage)
        finally:
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled():
            task.result()

    run_virtually(main)


def test_a_first_object_gets_clusters_then_its_route_then_its_listener() -> None:
    async def play(stage: Stage) -> None:
        state = await stage.do(snapshot(an_object(w1=100), w1=ONE))
        assert stage.envoy.kinds() == [Kind.CLUSTERS, Kind.ROUTES, Kind.LISTENERS]
        assert state == RouteState(generation="g1", endpoints=1)
        assert stage.sync.synced.is_set()

    on_stage(play)


def test_nothing_is_written_for_what_changes_nothing_in_envoy() -> None:
    async def play(stage: Stage) -> None:
        await stage.do(snapshot(an_object(w1=100), w1=ONE))
        state = await stage.do(snapshot(an_object(generation="g2", w1=100), w1=ONE))
        assert stage.envoy.given == []
        assert state.generation == "g2"

    on_stage(play)


def test_many_changes_at_once_become_one() -> None:
    async def play(stage: Stage) -> None:
        for number in range(50):
            stage.sync.want(snapshot(an_object(generation=f"g{number}", w1=100), w1=ONE))
        state = await stage.do(snapshot(an_object(generation="last", w1=100), w1=TWO))
        assert stage.envoy.kinds() == [Kind.CLUSTERS, Kind.ROUTES, Kind.LISTENERS]
        assert state == RouteState(generation="last", endpoints=2)

    on_stage(play)


def test_a_generation_waits_for_the_servers_of_every_share_and_sends_nothing_there_meanwhile() -> None:
    async def play(stage: Stage) -> None:
        state = await stage.do(snapshot(an_object(w1=90, w2=10), w1=ONE))
        assert (state.generation, state.endpoints) == ("", 1)
        assert "w2" in state.waits_for
        assert "w2" not in stage.envoy.files[Kind.ROUTES]["team.a"]
        state = await stage.do(snapshot(an_object(w1=90, w2=10), w1=ONE, w2=ONE))
        assert stage.envoy.kinds() == [Kind.CLUSTERS, Kind.ROUTES]
        assert state == RouteState(generation="g1", endpoints=2)

    on_stage(play)


def test_with_no_server_at_all_holding_is_what_is_wanted() -> None:
    async def play(stage: Stage) -> None:
        assert await stage.do(snapshot(an_object(w1=100))) == RouteState(generation="g1", endpoints=0)
        assert "disabled" not in stage.envoy.files[Kind.ROUTES]["team.a"]

    on_stage(play)


def test_the_last_server_goes_only_after_requests_are_held() -> None:
    async def play(stage: Stage) -> None:
        await stage.do(snapshot(an_object(w1=100), w1=ONE))
        await stage.do(snapshot(an_object(w1=100)))
        assert stage.envoy.kinds() == [Kind.ROUTES, Kind.CLUSTERS]
        assert stage.sync.servers(KEY) == 0

    on_stage(play)


def test_held_requests_are_let_go_once_the_cluster_is_acknowledged_without_waiting_for_the_route() -> None:
    async def play(stage: Stage) -> None:
        await stage.do(snapshot(an_object(w1=100)))
        stage.told.clear()
        stage.envoy.holds_back = Kind.ROUTES
        await stage.do(snapshot(an_object(w1=100), w1=ONE))
        assert stage.envoy.kinds() == [Kind.CLUSTERS]
        assert stage.told == [KEY, KEY], "that it waits, and that it has a server"
        assert stage.sync.serving(KEY) == (("w1", 100),)

    on_stage(play)


def test_who_waits_for_a_first_health_check_holds_nobody_else_back_and_goes_on_as_it_was() -> None:
    async def play(stage: Stage) -> None:
        other = an_object("b", port=10_001, v1=100)
        await stage.do(snapshot(an_object(w1=100), other, w1=ONE, v1=ONE))
        before = stage.envoy.files[Kind.ROUTES]["team.a"]
        stage.envoy.warms = frozenset({"team/w2/http"})
        moved = an_object(generation="g2", w2=100)
        changed = replace(other, generation="g2", gateway=Gateway(timeout_seconds=5))
        state = await stage.do(snapshot(moved, changed, w1=ONE, w2=ONE, v1=TWO))
        assert state == RouteState(
            generation="g1", waits_for="the first health checks of its servers are not over", endpoints=1
        )
        assert stage.envoy.files[Kind.ROUTES]["team.a"] == before
        assert stage.sync.serving(KEY) == (("w1", 100),)
        assert stage.sync.state(("team", "b")) == RouteState(generation="g2", endpoints=2)
        # Others come and go meanwhile.
        await stage.do(snapshot(moved, replace(changed, generation="g3"), w1=ONE, w2=ONE, v1=ONE))
        assert stage.sync.state(("team", "b")).generation == "g3"
        assert stage.sync.state(KEY).generation == "g1"
        stage.envoy.warms = frozenset()
        await asyncio.sleep(0.3)
        assert stage.sync.state(KEY) == RouteState(generation="g2", endpoints=1)
        assert stage.sync.serving(KEY) == (("w2", 100),)
        assert "team/w1/http" not in stage.envoy.files[Kind.CLUSTERS]

    on_stage(play)


def test_held_requests_wait_for_the_first_health_check_of_their_own_servers() -> None:
    async def play(stage: Stage) -> None:
        other = an_object("b", port=10_001, v1=100)
        await stage.do(snapshot(an_object(w1=100), other))
        stage.envoy.warms = frozenset({"team/w1/http"})
        await stage.do(snapshot(an_object(w1=100), other, w1=ONE, v1=ONE))
        assert (stage.sync.servers(KEY), stage.sync.servers(("team", "b"))) == (0, 1)
        stage.envoy.warms = frozenset()
        await asyncio.sleep(0.3)
        assert stage.sync.servers(KEY) == 1

    on_stage(play)


def test_weights_move_before_the_old_cluster_goes() -> None:
    async def play(stage: Stage) -> None:
        await stage.do(snapshot(an_object(w1=100), w1=ONE))
        await stage.do(snapshot(an_object(w2=100), w2=ONE))
        assert stage.envoy.kinds() == [Kind.CLUSTERS, Kind.ROUTES, Kind.CLUSTERS]
        assert set(stage.envoy.files[Kind.CLUSTERS]) == {"team/w2/http", "team/w2/grpc"}

    on_stage(play)


def test_an_object_that_leaves_loses_its_listener_at_once_and_the_rest_when_its_clients_are_gone() -> None:
    async def play(stage: Stage) -> None:
        await stage.do(snapshot(an_object(w1=100), w1=ONE))
        await stage.do(Snapshot())
        assert stage.envoy.kinds() == [Kind.LISTENERS]
        assert stage.envoy.files[Kind.LISTENERS] == {}
        await asyncio.sleep(55)
        assert set(stage.envoy.files[Kind.ROUTES]) == {"team.a"}
        assert len(stage.envoy.files[Kind.CLUSTERS]) == 2
        await asyncio.sleep(10)
        assert stage.envoy.kinds() == [Kind.LISTENERS, Kind.ROUTES, Kind.CLUSTERS]
        assert stage.envoy.files[Kind.CLUSTERS] == {}
        assert stage.sync.state(KEY) == RouteState()

    on_stage(play)


def test_an_object_that_comes_back_while_it_departs_goes_on() -> None:
    async def play(stage: Stage) -> None:
        await stage.do(snapshot(an_object(w1=100), w1=ONE))
        await stage.do(Snapshot())
        assert (await stage.do(snapshot(an_object(w1=100), w1=ONE))).generation == "g1"
        await asyncio.sleep(70)
        assert set(stage.envoy.files[Kind.LISTENERS]) == set(stage.envoy.files[Kind.ROUTES]) == {"team.a"}

    on_stage(play)


@pytest.mark.parametrize("names_culprits", [True, False])
@pytest.mark.parametrize("kind", list(Kind))
def test_who_is_refused_stays_as_it_was_and_all_others_go_on(kind: Kind, names_culprits: bool) -> None:
    async def play(stage: Stage) -> None:
        names = [f"n{number}" for number in range(9)]

        def world(generation: str, servers: frozenset[Endpoint], port: int) -> Snapshot:
            objects = [
                an_object(name, port=port + number, generation=generation, **{f"{name}w": 100})
                for number, name in enumerate(names)
            ]
            return snapshot(*objects, **{f"{name}w": servers for name in names})

        await stage.do(world("g1", ONE, 10_000))
        before = {kind: dict(files) for kind, files in stage.envoy.files.items()}
        stage.envoy.refuses = lambda given, name, text: (
            given is kind and name in ("team.n4", "team/n4w/grpc") and text != before[kind][name]
        )
        changed = world("g2", TWO, 11_000)
        # Also the route: another time-out.
        changed = replace(
            changed,
            objects={key: replace(each, gateway=Gateway(timeout_seconds=5)) for key, each in changed.objects.items()},
        )
        await stage.do(changed)
        bad = stage.sync.state(("team", "n4"))
        assert bad.rejected
        assert bad.generation == "g1"
        assert ("no!" in bad.waits_for) == names_culprits
        for name in names:
            if name != "n4":
                state = stage.sync.state(("team", name))
                assert state == RouteState(generation="g2", endpoints=2), name
                assert stage.envoy.files[Kind.LISTENERS][f"team.{name}"] != before[Kind.LISTENERS][f"team.{name}"]
        assert not any(stage.envoy.refuses(kind, name, text) for name, text in stage.envoy.files[kind].items())
        stage.envoy.refuses = lambda _kind, _name, _text: False
        await asyncio.sleep(40)
        assert stage.sync.state(("team", "n4")) == RouteState(generation="g2", endpoints=2)

    on_stage(play, Recorder(names_culprits=names_culprits))


def test_a_refusal_is_not_tried_again_at_every_change_of_others() -> None:
    async def play(stage: Stage) -> None:
        stage.envoy.refuses = lambda kind, name, _text: kind is Kind.LISTENERS and name == "team.a"
        await stage.do(snapshot(an_object(w1=100), w1=ONE))
        other = an_object("b", port=10_001, w2=100)
        await stage.do(snapshot(an_object(w1=100), other, w1=ONE, w2=ONE))
        assert [set(given) for kind, given in stage.envoy.given if kind is Kind.LISTENERS] == [{"team.b"}]
        stage.told.clear()
        await asyncio.sleep(100)
        assert stage.sync.state(KEY).rejected
        assert KEY not in stage.told, "a try in vain is no news"

    on_stage(play)


def test_a_port_that_another_object_has_is_told() -> None:
    async def play(stage: Stage) -> None:
        await stage.do(snapshot(an_object("a", w1=100), an_object("b", w2=100), w1=ONE, w2=ONE))
        state = stage.sync.state(("team", "b"))
        assert state.rejected
        assert "team/a" in state.waits_for
        assert stage.sync.state(KEY).generation == "g1"

    on_stage(play)


def test_an_envoy_that_started_anew_is_asked_again_and_what_it_no_longer_takes_is_told() -> None:
    async def play(stage: Stage) -> None:
        other = an_object("b", port=10_001, w2=100)
        await stage.do(snapshot(an_object(w1=100), other, w1=ONE, w2=ONE))
        stage.envoy.refuses = lambda kind, name, _text: kind is Kind.LISTENERS and name == "team.a"
        stage.envoy.restarted = True
        await asyncio.sleep(2)
        assert stage.sync.state(KEY).rejected
        assert stage.sync.state(KEY).generation == ""
        assert stage.sync.state(("team", "b")).generation == "g1"
        stage.envoy.refuses = lambda _kind, _name, _text: False
        await asyncio.sleep(40)
        assert stage.sync.state(KEY).generation == "g1"

    on_stage(play)


def test_while_envoy_is_silent_nothing_is_acknowledged() -> None:
    async def play(stage: Stage) -> None:
        stage.envoy.answers = asyncio.Event()
        state = await stage.do(snapshot(an_object(w1=100), w1=ONE), seconds=20)
        assert state == RouteState(waits_for="Envoy has not acknowledged it yet")
        assert not stage.sync.synced.is_set()
        stage.envoy.answers.set()
        await asyncio.sleep(1)
        assert stage.sync.state(KEY).generation == "g1"
        assert stage.sync.synced.is_set()

    on_stage(play)


def test_a_new_sidecar_goes_on_from_the_files_and_asks_envoy_before_it_says_anything() -> None:
    envoy = Recorder()
    wanted = snapshot(an_object(w1=100), w1=ONE)

    async def first(stage: Stage) -> None:
        await stage.do(wanted)

    async def second(stage: Stage) -> None:
        state = await stage.do(wanted)
        assert stage.envoy.kinds() == [Kind.CLUSTERS, Kind.ROUTES, Kind.LISTENERS]
        assert state.generation == "g1"
        await stage.do(Snapshot())
        assert stage.envoy.kinds() == [Kind.LISTENERS]

    on_stage(first, envoy)
    on_stage(second, envoy)
