"""What objects take in etcd."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Iterable

_PAGE = 500


def stored_bytes(address: str, prefixes: Iterable[str]) -> int:
    """Bytes of all keys and values below these prefixes (`/registry/pods/models/`)."""
    return sum(_below(address, prefix.encode()) for prefix in prefixes)


def _below(address: str, prefix: bytes) -> int:
    first, end, total = prefix, prefix[:-1] + bytes([prefix[-1] + 1]), 0
    while True:
        answer = _range(address, first, end)
        pairs = answer.get("kvs", [])
        total += sum(len(base64.b64decode(pair["key"])) + len(base64.b64decode(pair["value"])) for pair in pairs)
        if not answer.get("more"):
            return total
        first = base64.b64decode(pairs[-1]["key"]) + b"\0"


def _range(address: str, first: bytes, end: bytes) -> dict[str, list[dict[str, str]]]:
    body = {"key": base64.b64encode(first).decode(), "range_end": base64.b64encode(end).decode(), "limit": _PAGE}
    request = urllib.request.Request(f"{address}/v3/kv/range", data=json.dumps(body).encode())  # noqa: S310 - etcd on loopback
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as response:
        answer: dict[str, list[dict[str, str]]] = json.load(response)
    return answer
