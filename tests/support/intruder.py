"""Runs in a pod of a stranger: tries every port of Conch's pods, and on those that answer whatever should need a key.

Prints one JSON object: `open` (host to ports) and `answers` (by place, what each attempt was told).
"""

import http.client
import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

ANSWER_SECONDS = 15.0
WRONG = {"Authorization": "Bearer wrong", "conch-admin-key": "wrong"}

SIDECAR = [("GET", "/report"), ("GET", "/wakes")]
AGENT = [("GET", "/status"), ("PUT", "/pin")]
OPEN = {
    "operator": [(8080, "/healthz"), (8080, "/readyz"), (8080, "/metrics")],
    "gateway": [(8080, "/healthz"), (8080, "/readyz"), (8080, "/metrics"), (8080, "/leave")],
    "server": [(8080, "/healthz"), (8080, "/leave"), (8002, "/metrics")],
}
"""What answers whoever asks, for kubelets and Prometheus."""
PIN = {"revision": "r", "pin": {"digest": f"sha256:{'0' * 64}", "resolved": ""}, "code": "0" * 64}


def restricted(model: str) -> list[tuple[str, str]]:
    """Triton's HTTP APIs that read or change what is served, and how."""
    paths = [f"/v2/repository/models/{model}/{verb}" for verb in ("load", "unload")]
    for memory in ("systemsharedmemory", "cudasharedmemory"):
        paths += [f"/v2/{memory}/region/stolen/register", f"/v2/{memory}/region/stolen/unregister"]
    changes = ["/v2/repository/index", *paths, "/v2/logging", "/v2/trace/setting", f"/v2/models/{model}/trace/setting"]
    reads = ["/v2/logging", "/v2/trace/setting", f"/v2/models/{model}/config", f"/v2/models/{model}/trace/setting"]
    reads += ["/v2/systemsharedmemory/status", "/v2/cudasharedmemory/status"]
    return [*(("POST", path) for path in changes), *(("GET", path) for path in reads)]


def open_ports(address: str) -> list[int]:
    """Every TCP port that takes a connection."""
    found = []
    for port in range(1, 65536):
        with socket.socket() as connection:
            connection.settimeout(ANSWER_SECONDS)
            if connection.connect_ex((address, port)) == 0:
                found.append(port)
    return found


def ask(address: str, port: int, method: str, path: str, headers: dict[str, str]) -> dict[str, Any]:
    """One HTTP request; status 0 where nothing was answered in time."""
    # Who may leave is told once nobody uses the pod, which is never.
    connection = http.client.HTTPConnection(address, port, timeout=3 if path == "/leave" else ANSWER_SECONDS)
    body = json.dumps(PIN) if path == "/pin" else "{}" if method == "POST" else None
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        return {"call": f"{method} {path}", "status": answer.status, "text": answer.read(100_000).decode("latin-1")}
    except (OSError, http.client.HTTPException) as error:
        return {"call": f"{method} {path}", "status": 0, "text": repr(error)}
    finally:
        connection.close()


def call(address: str, port: int, method: str, headers: dict[str, str]) -> dict[str, Any]:
    """One gRPC call with an empty message."""
    metadata = [(f"triton-grpc-protocol-{key.lower()}", value) for key, value in headers.items()]
    with grpc.insecure_channel(f"{address}:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        ask_for = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        try:
            return {
                "call": method,
                "status": "OK",
                "text": repr(ask_for(b"", metadata=metadata, timeout=ANSWER_SECONDS)),
            }
        except grpc.RpcError as error:
            return {"call": method, "status": error.code().name, "text": str(error.details())}


def attempts(plan: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What each place answers, without a key and with a wrong one."""
    server, gateway = plan["server"], plan["gateway"]
    answers = {
        f"open at {host}": [ask(plan[host], port, "GET", path, {}) for port, path in some]
        for host, some in OPEN.items()
    }
    for key, headers in (("no key", {}), ("wrong key", WRONG)):
        answers[f"agent, {key}"] = [ask(server, 8080, *each, headers) for each in AGENT]
        answers[f"sidecar, {key}"] = [ask(gateway, 8080, *each, headers) for each in SIDECAR]
        for place, address, http_port, grpc_port in (
            ("server", server, 8000, 8001),
            ("gateway", gateway, plan["port"], plan["port"]),
        ):
            answers[f"HTTP of {place}, {key}"] = [
                ask(address, http_port, *each, headers) for each in restricted(plan["model"])
            ]
            answers[f"gRPC of {place}, {key}"] = [call(address, grpc_port, each, headers) for each in plan["methods"]]
    return answers


def main(plan: dict[str, Any]) -> None:
    """By a `plan`: addresses of `operator`, `gateway`, `server`; a `model`, its `port` at gateways; gRPC `methods`."""
    hosts = ("operator", "gateway", "server")
    with ThreadPoolExecutor(len(hosts)) as pool:
        found = dict(zip(hosts, pool.map(open_ports, (plan[host] for host in hosts)), strict=True))
    print(json.dumps({"open": found, "answers": attempts(plan)}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
