"""Reading Triton's metrics: what waits, and the GPUs' memory, from text as Triton prints it."""

from aiohttp import web
from aiohttp.test_utils import TestServer

from conch.triton.metrics import MetricsReader, TritonMetrics, parse_metrics

GPUS = """\
# HELP nv_inference_pending_request_count Instantaneous number of pending requests awaiting execution per-model.
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="mlp",version="1"} 3
nv_inference_pending_request_count{model="mlp",version="2"} 4
nv_inference_pending_request_count{model="tokens",version="1"} 1
# HELP nv_gpu_utilization GPU utilization rate [0.0 - 1.0)
# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{gpu_uuid="GPU-0e9fdafb-5adb-91cd-26a8-308d34357efc"} 0.25
# HELP nv_gpu_memory_total_bytes GPU total memory, in bytes
# TYPE nv_gpu_memory_total_bytes gauge
nv_gpu_memory_total_bytes{gpu_uuid="GPU-0e9fdafb-5adb-91cd-26a8-308d34357efc"} 85899345920
nv_gpu_memory_total_bytes{gpu_uuid="GPU-5a7a7c2e-5b0f-4a3b-8f4b-4a5f3f0e1d2c"} 1.6945512448e+10
# HELP nv_gpu_memory_used_bytes GPU used memory, in bytes
# TYPE nv_gpu_memory_used_bytes gauge
nv_gpu_memory_used_bytes{gpu_uuid="GPU-0e9fdafb-5adb-91cd-26a8-308d34357efc"} 9749135360.000000
nv_gpu_memory_used_bytes{gpu_uuid="GPU-5a7a7c2e-5b0f-4a3b-8f4b-4a5f3f0e1d2c"} 8472756224
# HELP nv_cpu_memory_used_bytes CPU used memory (RAM), in bytes
# TYPE nv_cpu_memory_used_bytes gauge
nv_cpu_memory_used_bytes 1192390656
"""


def test_versions_are_added_up_and_of_gpus_the_fullest_counts() -> None:
    """The other one has more in use, and far more room."""
    assert parse_metrics(GPUS) == TritonMetrics(
        pending={"mlp": 7, "tokens": 1},
        gpu_memory_used_bytes=8472756224,
        gpu_memory_total_bytes=16945512448,
    )


def test_without_a_gpu_and_where_it_cannot_tell_there_is_no_memory() -> None:
    without = "\n".join(line for line in GPUS.splitlines() if "nv_gpu" not in line)
    assert parse_metrics(without) == TritonMetrics(pending={"mlp": 7, "tokens": 1})
    only_headers = "# HELP nv_gpu_memory_used_bytes GPU used memory, in bytes\n# TYPE nv_gpu_memory_used_bytes gauge\n"
    assert parse_metrics(only_headers) == TritonMetrics()


def test_what_is_no_number_is_left_out() -> None:
    text = """\
nv_inference_pending_request_count{model="a \\"b\\", c",version="1"} 2
nv_inference_pending_request_count{version="1"} 9
nv_inference_pending_request_count{model="c",version="1"} NaN
nv_gpu_memory_used_bytes{gpu_uuid="x"} +Inf
nv_gpu_memory_total_bytes{gpu_uuid="x"} -1
"""
    told = parse_metrics(text)
    assert (dict(told.pending), told.gpu_memory_used_bytes) == ({'a \\"b\\", c': 2}, None)
    assert told.gpu_memory_total_bytes == 0


async def test_they_are_read_and_a_triton_that_does_not_tell_is_no_error() -> None:
    body: list[str] = [GPUS]

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=body[0]) if body[0] else web.Response(status=404)

    application = web.Application()
    application.router.add_get("/metrics", answer)
    async with TestServer(application, host="127.0.0.1") as server:
        async with MetricsReader(f"127.0.0.1:{server.port}") as reader:
            assert await reader.read() == parse_metrics(GPUS)
            body[0] = "x" * (5 << 20)
            assert await reader.read() is None, "too long for any Triton"
            body[0] = ""
            assert await reader.read() is None
        port = server.port
    async with MetricsReader(f"127.0.0.1:{port}") as reader:
        assert await reader.read() is None
