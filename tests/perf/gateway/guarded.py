"""What TLS and API keys cost a small request, against the same gateway without them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.cluster.pki import Authority
from tests.cluster.ports import free_port
from tests.perf.gateway.latency import PROTOCOLS, Way, compare, cpu_microseconds, median_ms
from tests.perf.gateway.pod import Model, gateway_pod
from tests.perf.gateway.report import Results
from tests.support.mounted_secret import MountedSecret

_HOST: Final = "m.team.svc"
_KEY: Final = "key-of-client-50-0123456789"
_CLIENTS: Final = 100
"""Half of them limited to namespaces: each of these is one more comparison for every request."""


async def measure(results: Results, folder: Path, *, rounds: int, seconds: float) -> None:
    """Medians, as ratios to the gateway without."""
    async with _ways(folder) as ways:
        found = await compare("guarded", ways, folder, rounds=rounds, seconds=seconds)
    plain = found.pop("plain")
    for name, rounds_of in found.items():
        for protocol in PROTOCOLS:
            for quantile in ("p50_ms", "p99_ms"):
                results.add(
                    f"with {name}: {protocol} {quantile.removesuffix('_ms')}, ms",
                    median_ms(rounds_of, protocol, quantile),
                    reference=median_ms(plain, protocol, quantile),
                )
        results.add(
            f"with {name}: CPU of Envoy per request, us", cpu_microseconds(rounds_of), reference=cpu_microseconds(plain)
        )


@asynccontextmanager
async def _ways(folder: Path) -> AsyncIterator[dict[str, Way]]:
    authority = Authority(folder / "guarded-ca")
    pair = authority.issue("gateway", "gateway", hosts=[_HOST])
    certificate = {"tls.crt": pair.certificate.read_text(), "tls.key": pair.key.read_text()}
    limits = ("", "\nnamespaces: team")
    clients = {f"client-{n}": f"key-of-client-{n}-0123456789{limits[n % 2]}" for n in range(_CLIENTS)}
    guards: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
        "plain": ({}, {}),
        "TLS": (
            {"CONCH_GATEWAY_TLS_FOLDER": str(MountedSecret(folder / "guarded-tls", certificate).folder)},
            {"ca_file": str(authority.pair.certificate), "server_name": _HOST},
        ),
        "API keys": (
            {"CONCH_GATEWAY_API_KEYS_FOLDER": str(MountedSecret(folder / "guarded-keys", clients).folder)},
            {"headers": {"x-api-key": _KEY}},
        ),
    }
    async with AsyncExitStack() as stack:
        ways: dict[str, Way] = {}
        for name, (env, stream) in guards.items():
            pod = await stack.enter_async_context(gateway_pod(folder / f"guarded-{name}", concurrency=1, env=env))
            model = Model(name="m", port=free_port("127.0.0.1"), workloads=("m1",))
            pod.put_servers(model, "m1", ["10.64.1.1"])
            pod.put_model(model, [100])
            await pod.start()
            ways[name] = Way(address=f"127.0.0.1:{model.port}", envoy_pid=pod.envoy.pid, pod=pod, stream=stream)
        yield ways
