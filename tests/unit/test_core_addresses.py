"""The addresses in the status, by how requests come to the object."""

from typing import Any

import pytest

from tests.sim.world import World

MODEL = {"version": 1, "source": {"uri": "https://models/a.onnx"}}
PARENT = {"name": "public"}
SERVICE = ("http://sentiment.default.svc:8000", "sentiment.default.svc:8001")


@pytest.mark.parametrize(
    ("gateway", "urls"),
    [
        ({}, SERVICE),
        ({"mode": "Direct"}, SERVICE),
        ({"parentRefs": [PARENT]}, SERVICE),
        ({"parentRefs": [PARENT], "hostnames": ["a.example.com"]}, ("http://a.example.com", "a.example.com:80")),
        (
            {"parentRefs": [{**PARENT, "port": 443}], "hostnames": ["*.example.com", "b.example.com"]},
            ("https://b.example.com", "grpcs://b.example.com:443"),
        ),
        (
            {
                "parentRefs": [
                    {**PARENT, "port": 8080, "protocol": "HTTP"},
                    {**PARENT, "port": 443, "protocol": "GRPC"},
                ],
                "hostnames": ["a.example.com"],
                "grpcHostnames": ["grpc.example.com"],
            },
            ("http://a.example.com:8080", "grpcs://grpc.example.com:443"),
        ),
        (
            {"parentRefs": [{**PARENT, "protocol": "HTTP"}], "hostnames": ["a.example.com"]},
            ("http://a.example.com", SERVICE[1]),
        ),
        ({"parentRefs": [PARENT], "hostnames": ["*.example.com"]}, SERVICE),
    ],
)
def test_addresses(gateway: dict[str, Any], urls: tuple[str, str]) -> None:
    mode = {"mode": "GatewayAPI"} if "parentRefs" in gateway else {}
    status = World(spec={"model": MODEL, "gateway": {**gateway, **mode}}).plan().status
    assert (status.url, status.grpc_url) == urls
