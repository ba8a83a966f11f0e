"""The README promises only what is there."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from conch.api.model_deployment import ModelDeploymentSchema
from conch.store.digest import tree_digest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SAMPLES = sorted((ROOT / "manifests" / "samples").rglob("*.yaml"))


def test_ci_runs_exactly_the_test_command() -> None:
    assert "make test" in README
    commands = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and line[0] not in "#c s"]
    assert [line for line in commands if not line.startswith(("set ", "cd "))] == ["make test"]


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z0-9-]+)", README)) <= targets


def test_every_linked_file_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert links
    assert [link for link in links if not (ROOT / link.partition("#")[0]).exists()] == []


def test_the_example_is_the_minimal_sample() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    assert yaml.safe_load(example) == yaml.safe_load((ROOT / "manifests/samples/minimal.yaml").read_text())


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_samples_are_valid(path: Path) -> None:
    documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    assert documents
    for document in documents:
        if document.get("kind") == "ModelDeployment":
            ModelDeploymentSchema.model_validate({"spec": document["spec"]})


def test_the_samples_digest_is_that_of_its_file() -> None:
    folder = ROOT / "manifests/samples/digits"
    sample = yaml.safe_load((folder / "model-deployment.yaml").read_text())
    assert sample["spec"]["model"]["source"]["digest"] == tree_digest(folder / "digits.onnx")


def test_every_shell_line_can_be_parsed() -> None:
    for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL):
        for line in block.splitlines():
            assert shlex.split(line, comments=True)
