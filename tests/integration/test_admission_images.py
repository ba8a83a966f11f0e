"""The policy conch-runtime-images: model servers run only images of allowed repositories."""

from collections.abc import Iterator

import pytest

from tests.support.installed_chart import InstalledChart, installed_chart, model_deployment

ALLOWED = (
    "policy.images.allowed="
    "{nvcr.io/nvidia/tritonserver,registry.example.com,registry.example.com:5000/triton/,quay.example.com/pinned:1}"
)
DIGEST = f"sha256:{'0' * 64}"


@pytest.fixture(scope="module")
def chart() -> Iterator[InstalledChart]:
    """A cluster with the chart and a list of allowed images."""
    with installed_chart("--set", ALLOWED) as installed:
        yield installed


@pytest.mark.parametrize(
    "image",
    [
        None,
        "nvcr.io/nvidia/tritonserver",
        "nvcr.io/nvidia/tritonserver:26.07-py3",
        f"nvcr.io/nvidia/tritonserver@{DIGEST}",
        f"nvcr.io/nvidia/tritonserver:26.07-py3@{DIGEST}",
        "registry.example.com:5000/triton/custom:1",
        "quay.example.com/pinned:1",
        f"quay.example.com/pinned:1@{DIGEST}",
        "registry.example.com:5000/triton/deep/custom:1",
    ],
)
def test_allowed(chart: InstalledChart, image: str | None) -> None:
    chart.must(
        "create", "--dry-run=server", "-f", "-", objects=model_deployment(runtime={"image": image} if image else {})
    )


@pytest.mark.parametrize(
    "image",
    [
        "nvcr.io/nvidia/tritonserver-of-somebody:1",
        "nvcr.io/nvidia/tritonserver/of-somebody:1",
        "nvcr.io/nvidia/tritonserver:1/of-somebody",
        "NVCR.io/nvidia/tritonserver:1",
        "quay.example.com/pinned",
        "quay.example.com/pinned:2",
        "quay.example.com/pinned:10",
        "docker.io/nvcr.io/nvidia/tritonserver:1",
        "tritonserver:1",
        "registry.example.com:5000/other",
        "registry.example.com:5000/triton",
        "registry.example.com.somebody.com/triton/a",
    ],
)
def test_refused_with_what_to_use_instead(chart: InstalledChart, image: str) -> None:
    answer = chart.run("create", "--dry-run=server", "-f", "-", objects=model_deployment(runtime={"image": image}))
    assert answer.returncode != 0
    assert "'conch-runtime-images'" in answer.stderr, answer.stderr
    assert f"spec.runtime.image: {image} is not an allowed image" in answer.stderr
    assert "nvcr.io/nvidia/tritonserver, registry.example.com, registry.example.com:5000/triton/" in answer.stderr


def test_the_image_may_not_be_changed_to_a_refused_one(chart: InstalledChart) -> None:
    chart.must("create", "-f", "-", objects=model_deployment("changing"))
    answer = chart.apply(model_deployment("changing", runtime={"image": "somebody/triton"}))
    assert "'conch-runtime-images'" in answer.stderr
