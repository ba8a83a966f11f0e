"""Every object has a port of its own, whoever leads and whatever was written meanwhile."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from conch.api.model_deployment import ModelDeployment
from conch.api.status import GatewayStatus
from conch.app.port_book import PortBook
from tests.sim.world import World

SPEC = {"model": {"version": 1, "source": {"uri": "https://models.example/a.onnx"}}}
PORTS = range(10_000, 10_008)


def _object(uid: str, port: int | None = None, created: str = "2026-01-01T00:00:00Z") -> ModelDeployment:
    owner = World(spec=SPEC).owner
    status = owner.status.model_copy(update={"gateway": GatewayStatus(port=port) if port else None})
    return replace(owner, uid=uid, created=created, status=status)


def test_a_port_that_was_promised_is_given_to_nobody_else_before_it_is_written() -> None:
    book = PortBook(PORTS)
    ports = [book.port_of(_object(f"uid-{number}")) for number in range(len(PORTS))]
    assert sorted(port for port in ports if port is not None) == list(PORTS)
    assert book.port_of(_object("one-more")) is None
    assert book.port_of(_object("uid-3")) == ports[3], "a promise is kept"


def test_the_port_of_an_object_that_is_gone_is_free_again() -> None:
    book = PortBook(range(10_000, 10_001))
    book.note(_object("first", 10_000))
    assert book.port_of(_object("second")) is None
    book.forget("first")
    assert book.port_of(_object("second")) == 10_000


def test_an_object_that_gives_its_port_back_frees_it() -> None:
    book = PortBook(range(10_000, 10_001))
    book.note(_object("first", 10_000))
    book.note(_object("first"))
    assert book.port_of(_object("second")) == 10_000


def test_an_object_keeps_its_port_when_the_installation_gives_others() -> None:
    book = PortBook(PORTS)
    book.note(_object("first", 19_000))
    assert book.port_of(_object("first", 19_000)) == 19_000


def test_of_two_objects_that_claim_a_port_the_older_keeps_it() -> None:
    book = PortBook(PORTS)
    older, younger = _object("z", 10_001, "2026-01-01T00:00:00Z"), _object("a", 10_001, "2026-01-02T00:00:00Z")
    book.note(younger)
    book.note(older)
    assert book.port_of(older) == 10_001
    assert book.port_of(younger) not in (None, 10_001)


def test_a_port_that_was_given_back_is_taken_last() -> None:
    """Clients of the object of before may still find their way to it."""
    book = PortBook(PORTS)
    for number in range(4):
        book.note(_object(f"gone-{number}", PORTS[number]))
    for number in range(4):
        book.forget(f"gone-{number}")
    given = [book.port_of(_object(f"uid-{number}")) for number in range(len(PORTS))]
    assert set(given[:4]) == set(PORTS[4:])
    assert given[4:] == list(PORTS[:4]), "the longest unused first"


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["ask", "write", "forget", "release"])), max_size=60))
def test_no_two_objects_are_ever_told_the_same_port(history: list[tuple[int, str]]) -> None:
    book = PortBook(PORTS)
    told: dict[str, int] = {}
    for number, happening in history:
        uid = f"uid-{number}"
        match happening:
            case "ask":
                port = book.port_of(_object(uid, told.get(uid)))
                if port is not None:
                    told[uid] = port
            case "write" if uid in told:
                book.note(_object(uid, told[uid]))
            case "forget":
                book.forget(uid)
                told.pop(uid, None)
            case "release":
                book.note(_object(uid))
                book.forget(uid)
                told.pop(uid, None)
        assert len(set(told.values())) == len(told)
