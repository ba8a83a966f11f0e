"""Runs the README's commands as they stand there, and the demo."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import binaries
from tests.cluster.client import Cluster
from tests.support.installation import NAMESPACE, VALUES, helm, install

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parents[2]

ELSEWHERE = {
    "make demo": "test_the_demo",
    "make test": "this run",
    "docker build -f operator/Dockerfile -t registry.example.com/conch:0.1.0 .": "the images of this run (buildah)",
    "docker push registry.example.com/conch:0.1.0": "a registry is the user's",
}
"""Commands that this test does not run itself, and what does."""


def _commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def _environment(cluster: Cluster) -> dict[str, str]:
    programs = binaries.ensure("kubectl", "helm")
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "KUBECONFIG": str(cluster.kubeconfig), "PATH": path}


@pytest.fixture
def _without_conch(cluster: Cluster) -> None:
    helm(cluster, "uninstall", "conch", "--namespace", NAMESPACE, "--wait")


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("_without_conch")
def test_the_commands_of_the_readme(cluster: Cluster) -> None:
    commands = _commands()
    assert set(ELSEWHERE) <= set(commands), "a command left the README: take it out here too"
    try:
        for command in commands:
            if command in ELSEWHERE:
                continue
            # The one thing a reader replaces: the registry to which the image was pushed.
            line = command.replace(
                "--set image.repository=registry.example.com/conch",
                f"--set image.repository=localhost/conch --set image.tag=dev --values {VALUES}",
            )
            done = subprocess.run(
                ["/bin/sh", "-c", line],
                cwd=ROOT,
                env=_environment(cluster),
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )
            assert done.returncode == 0, f"{line}: {done.stderr}"
            assert done.stdout.strip(), f"{line} printed nothing"
    finally:
        install(cluster)


@pytest.mark.timeout(900)
def test_the_demo(cluster: Cluster) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.demo"],
        cwd=ROOT,
        env=_environment(cluster),
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    wanted = (
        "a drawn 4",
        "HTTP: 4",
        "gRPC: 4",
        "2 of 2 replicas serve",
        "The same pods as before",
        "AnalysisFailed",
        "demo-rollout.png",
    )
    scaled = ("Surge", "Idle", "One request woke it", "demo-autoscaling.png")
    for words in (*wanted, *scaled, "What to try next"):
        assert words in done.stdout
