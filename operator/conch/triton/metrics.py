"""The few of Triton's metrics that its other APIs do not tell: what waits, and the memory of the GPUs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import Final, Self

import aiohttp

_PENDING: Final = "nv_inference_pending_request_count"
_USED: Final = "nv_gpu_memory_used_bytes"
_TOTAL: Final = "nv_gpu_memory_total_bytes"
_LINE: Final = re.compile(rf"^({_PENDING}|{_USED}|{_TOTAL})(?:\{{(.*)\}})? ([^ \n]+)(?: [0-9]+)?$", re.MULTILINE)
_MODEL: Final = re.compile(r'(?:^|,)model="((?:[^"\\]|\\.)*)"')

_TIMEOUT: Final = aiohttp.ClientTimeout(total=2)
_BYTES_MOST: Final = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonMetrics:
    """One look at them."""

    pending: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Requests that wait to be executed, by model, over its versions. Always 0 for an ensemble."""
    gpu_memory_used_bytes: int | None = None
    """Of the fullest of the GPUs that Triton sees: a further instance runs on each of them, and so must fit there. None
    without a GPU, and where Triton cannot tell (MIG)."""
    gpu_memory_total_bytes: int | None = None
    """Of the same GPU."""


def parse_metrics(text: str) -> TritonMetrics:
    """Read what `/metrics` says, in Prometheus' text format; what is no number is left out."""
    pending: dict[str, int] = {}
    memory: dict[str, dict[str, int]] = {}
    for name, labels, said in _LINE.findall(text):
        try:
            value = max(0, int(float(said)))
        except (ValueError, OverflowError):
            continue
        if name != _PENDING:
            memory.setdefault(labels, {})[name] = value
        elif model := _MODEL.search(labels):
            pending[model[1]] = pending.get(model[1], 0) + value
    fullest = max(memory.values(), key=lambda gpu: gpu.get(_USED, 0) / (gpu.get(_TOTAL) or 1), default={})
    return TritonMetrics(
        pending=MappingProxyType(pending),
        gpu_memory_used_bytes=fullest.get(_USED),
        gpu_memory_total_bytes=fullest.get(_TOTAL),
    )


class MetricsReader:
    """Reads one Triton's metrics, on loopback. Use as an async context manager."""

    def __init__(self, address: str) -> None:
        self._url = f"http://{address}/metrics"
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def read(self) -> TritonMetrics | None:
        """What they say now; None when Triton does not tell. Never raises."""
        if self._session is None:
            return None
        try:
            async with self._session.get(self._url, allow_redirects=False) as response:
                response.raise_for_status()
                body = bytearray()
                async for chunk in response.content.iter_chunked(1 << 16):
                    body += chunk
                    if len(body) > _BYTES_MOST:
                        return None
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None
        return parse_metrics(body.decode(errors="replace"))
