"""Envoys whose whole configuration is static: the server behind everything, and the plain proxy to compare with.

The server is an Envoy because it answers both protocols in some ten microseconds, always alike: nothing in Python does.
HTTP is a direct response. A gRPC answer needs trailers, which a direct response has not; so the server asks itself over
HTTP, and its gRPC bridge makes a framed message with trailers of the answer.
"""

import asyncio
import base64
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
from tritonclient.grpc import service_pb2

from conch.api.pod import GRPC_PORT, HTTP_PORT
from conch.gateway.envoy.bootstrap import TYPE_PREFIX
from tests.cluster.ports import free_port
from tests.support.async_waiting import until
from tests.support.envoy import PROGRAM

_FILTERS: Final = "envoy.extensions.filters."
_MESSAGE: Final = "application/x-protobuf"
_BODY_BYTES_MOST: Final = 1 << 20


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[None]:
    """Answers inference over both protocols on all addresses of this machine, on the ports that servers have."""
    inside = free_port("127.0.0.1")
    output = service_pb2.ModelInferResponse.InferOutputTensor(name="OUT", datatype="FP32", shape=[4])
    message = service_pb2.ModelInferResponse(model_name="m", outputs=[output], raw_output_contents=[bytes(16)])
    bridge = {
        "name": "bridge",
        "typed_config": {
            "@type": f"{TYPE_PREFIX}{_FILTERS}http.grpc_http1_reverse_bridge.v3.FilterConfig",
            "content_type": _MESSAGE,
            "withhold_grpc_frames": True,
        },
    }
    # Not before the request is whole: an answer that is earlier ends its connection.
    whole = {
        "name": "buffer",
        "typed_config": {
            "@type": f"{TYPE_PREFIX}{_FILTERS}http.buffer.v3.Buffer",
            "max_request_bytes": _BODY_BYTES_MOST,
        },
    }
    routes = [_to("inside", prefix="/inference.GRPCInferenceService/"), _answer(b'{"outputs":[]}', "application/json")]
    everywhere = "0.0.0.0"  # noqa: S104 - of a network that has nothing but loopback
    listeners = [
        *(_listener(f"server-{port}", everywhere, port, routes, [bridge, whole]) for port in (HTTP_PORT, GRPC_PORT)),
        _listener("inside", "127.0.0.1", inside, [_answer(message.SerializeToString(), _MESSAGE)], [whole]),
    ]
    async with _running(folder, listeners, [_cluster("inside", inside)]):
        yield


@asynccontextmanager
async def plain(folder: Path, port: int) -> AsyncIterator[int]:
    """A proxy with one listener on `port`, one route and one cluster, and nothing else; yields its process id."""
    async with _running(folder, [_listener("in", "127.0.0.1", port, [_to("server")], [])], [_plain_cluster()]) as pid:
        yield pid


@asynccontextmanager
async def _running(folder: Path, listeners: list[dict[str, Any]], clusters: list[dict[str, Any]]) -> AsyncIterator[int]:
    admin_port = free_port("127.0.0.1")
    bootstrap = {
        "admin": {"address": _address("127.0.0.1", admin_port)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }
    process = _spawn(folder, bootstrap)
    try:

        async def live() -> bool:
            assert process.poll() is None, f"Envoy ended: see {folder}"
            try:
                async with (
                    aiohttp.ClientSession() as session,
                    session.get(f"http://127.0.0.1:{admin_port}/ready") as response,
                ):
                    return response.status == 200
            except aiohttp.ClientError:
                return False

        await until("a static Envoy to be live", live)
        yield process.pid
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)


def _spawn(folder: Path, bootstrap: dict[str, Any]) -> subprocess.Popen[bytes]:
    folder.mkdir()
    file = folder / "static.json"
    file.write_text(json.dumps(bootstrap))
    # The kernel ends it with this process at the latest.
    command = ["setpriv", "--pdeathsig", "KILL", "--", str(PROGRAM), "-c", str(file), "--disable-hot-restart"]
    with (folder / "envoy.log").open("wb") as out:
        return subprocess.Popen(
            [*command, "--concurrency", "1", "--log-level", "warning"], stdout=out, stderr=subprocess.STDOUT
        )


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _listener(
    name: str, host: str, port: int, routes: list[dict[str, Any]], filters: list[dict[str, Any]]
) -> dict[str, Any]:
    router = {"name": "router", "typed_config": {"@type": f"{TYPE_PREFIX}{_FILTERS}http.router.v3.Router"}}
    manager = {
        "@type": f"{TYPE_PREFIX}{_FILTERS}network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "AUTO",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [*filters, router],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {"name": name, "address": _address(host, port), "filter_chains": [chain]}


def _answer(body: bytes, content_type: str) -> dict[str, Any]:
    content = {"header": {"key": "content-type", "value": content_type}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    return {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_bytes": base64.b64encode(body).decode()}},
        "response_headers_to_add": [content],
    }


def _to(cluster: str, *, prefix: str = "/") -> dict[str, Any]:
    return {"match": {"prefix": prefix}, "route": {"cluster": cluster}}


def _plain_cluster() -> dict[str, Any]:
    """Speaks what the client speaks, on one port."""
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    as_client: dict[str, Any] = {"http_protocol_options": {}, "http2_protocol_options": {}}
    speaks = {"@type": TYPE_PREFIX + options, "use_downstream_protocol_config": as_client}
    return _cluster("server", HTTP_PORT) | {"typed_extension_protocol_options": {options: speaks}}


def _cluster(name: str, port: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address("127.0.0.1", port)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
