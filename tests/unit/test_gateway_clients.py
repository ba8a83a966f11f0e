"""What the entries of the Secret with API keys mean, and that nothing else lets anybody in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conch.gateway.clients import CLIENTS_MOST, Client, parse_clients

KEY = "0123456789abcdef"


@pytest.mark.parametrize(
    ("content", "namespaces"),
    [
        (KEY, None),
        (f"{KEY}\n", None),
        (f"{KEY}\r\n", None),
        (f"{KEY}\nnamespaces: team-a", ("team-a",)),
        (f"{KEY}\nnamespaces: team-b, team-a\n", ("team-a", "team-b")),
    ],
)
def test_an_entry_is_a_key_and_perhaps_the_namespaces(content: str, namespaces: tuple[str, ...] | None) -> None:
    clients = parse_clients({"app": content.encode()})
    assert clients.known == (Client(name="app", key=KEY, namespaces=namespaces),)
    assert clients.problems == {}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        ("schlüssel-0123456789".encode(), "not plain ASCII"),
        (b"two words 0123456789", "holds spaces"),
        (b"tab\tab0123456789abc", "holds spaces"),
        (b"short", "has 5 characters; 16 to 512"),
        (b"x" * 513, "has 513 characters; 16 to 512"),
        (f"{KEY}\nnamespaces:".encode(), "one line `namespaces: NAME NAME ...`"),
        (f"{KEY}\nnamespace: team-a".encode(), "one line `namespaces: NAME NAME ...`"),
        (f"{KEY}\nnamespaces: Team_A".encode(), "one line `namespaces: NAME NAME ...`"),
        (f"{KEY}\nnamespaces: *".encode(), "one line `namespaces: NAME NAME ...`"),
        (f"{KEY}\nnamespaces: a\nnamespaces: b".encode(), "one line `namespaces: NAME NAME ...`"),
        (f"{KEY}\nanother-key-0123456789".encode(), "one line `namespaces: NAME NAME ...`"),
    ],
)
def test_what_is_anything_else_lets_nobody_in_and_keeps_nobody_out(content: bytes, problem: str) -> None:
    clients = parse_clients({"app": content, "well": KEY.encode()})
    assert [client.name for client in clients.known] == ["well"]
    assert problem in clients.problems["app"]


def test_clients_with_one_key_are_both_refused_for_nobody_knows_who_it_is() -> None:
    clients = parse_clients({"a": KEY.encode(), "b": KEY.encode() + b"\n", "c": b"another-0123456789"})
    assert [client.name for client in clients.known] == ["c"]
    assert clients.problems == dict.fromkeys(("a", "b"), "another entry has the same key")


def test_there_are_not_more_clients_than_envoy_can_tell_apart_fast() -> None:
    clients = parse_clients({f"c{number:04}": f"{KEY}{number}".encode() for number in range(CLIENTS_MOST + 2)})
    assert len(clients.known) == CLIENTS_MOST
    assert [*clients.problems] == [f"c{CLIENTS_MOST}", f"c{CLIENTS_MOST + 1}"]


@given(st.dictionaries(st.text(max_size=5), st.binary(max_size=40)))
def test_no_entry_is_lost_and_no_key_is_told(entries: dict[str, bytes]) -> None:
    clients = parse_clients(entries)
    assert {client.name for client in clients.known} | clients.problems.keys() == entries.keys()
    assert not {client.name for client in clients.known} & clients.problems.keys()
    told = repr(clients) + str(clients.problems)
    assert not [client for client in clients.known if client.key in told and client.key not in client.name]
