"""An open-loop load of many requests while everything around the model comes and goes: none may be lost.

The same course as in tests/e2e/test_gateway.py, again and again, with servers that have CPU enough for the load.
"""

import json
from pathlib import Path
from typing import Annotated, Final

import typer

from tests.cluster.client import Cluster
from tests.e2e.conftest import SAMPLE
from tests.e2e.course import NAME, Course
from tests.perf import courses
from tests.perf.namespaces import fresh_namespace
from tests.support.gateways import digits_load
from tests.support.installation import install
from tests.support.model_store import ModelStore

NAMESPACE: Final = "perf-nothing-lost"
_LONGEST_SECONDS: Final = 1800


def main(
    requests: Annotated[int, typer.Option(help="At least so many; the course that has begun is finished.")] = 50_000,
    rate_per_second: Annotated[float, typer.Option(help="Of HTTP, gRPC and gRPC streams together.")] = 200,
) -> None:
    """Run the load, course after course, and print what became of it; exits with 1 if a request was lost.

    Example: python -m tests.perf.nothing_lost --requests 50000
    """
    cluster = Cluster.current()
    install(cluster)
    namespace = fresh_namespace(cluster, NAMESPACE)
    store = ModelStore(cluster)
    try:
        store.put("/digits.onnx", SAMPLE.read_bytes())
        runtime = {"resources": {"cpu": "500m", "memory": "768Mi"}, "sharedMemory": "64Mi"}
        # One node alone has no room for two versions.
        everywhere = {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]}
        course = Course(namespace, store.uri("/digits.onnx"), runtime=runtime, scheduling=everywhere)
        course.begin()
        results = courses.play(
            requests,
            lambda folder: digits_load(
                namespace.address(NAME),
                NAME,
                folder,
                rate_per_second=rate_per_second,
                duration_seconds=_LONGEST_SECONDS,
            ),
            course.run,
        )
    finally:
        store.close()
        cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    out = Path(".cluster/nothing_lost.json")
    out.write_text(json.dumps([result.model_dump(mode="json") for result in results], indent=2))
    courses.judge(results)


if __name__ == "__main__":
    typer.run(main)
