"""docs/layouts.md says of a model's files only what the code does."""

import json
import re
from pathlib import Path

import pytest
import yaml

from conch.api.model import ModelConfig, ModelFormat
from conch.api.model_deployment import parse_spec
from conch.api.spec import ModelDeploymentSpec
from conch.triton import vllm
from conch.triton.bare_file import KINDS
from conch.triton.scheduling import DEFAULT_QUEUE_SIZE

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "layouts.md").read_text()
CODE = "".join(
    re.sub(r'"\s*\n\s*f?"', "", file.read_text())  # literals that stand side by side are one
    for folder in ("triton", "agent")
    for file in sorted((ROOT / "operator" / "conch" / folder).glob("*.py"))
)


def _rows(title: str) -> list[list[str]]:
    """The cells of a section's tables, without their heads."""
    section = DOCUMENT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]


def test_every_format_has_its_row_and_its_file() -> None:
    rows = {row[1].strip("`"): row[0] for row in _rows("What is recognised")}
    assert rows.keys() == set(ModelFormat) - {ModelFormat.AUTO}
    for format, kind in KINDS.items():
        assert f"`{kind.names}`" in rows[format]


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", DOCUMENT, flags=re.DOTALL))
def test_every_example_is_a_valid_model(block: str) -> None:
    spec = parse_spec(yaml.safe_load(block))
    assert isinstance(spec, ModelDeploymentSpec), spec
    assert spec.model.config is not None


def test_every_field_of_the_configuration_is_in_an_example() -> None:
    said = {
        key
        for block in re.findall(r"```yaml\n(.*?)```", DOCUMENT, flags=re.DOTALL)
        for key in yaml.safe_load(block)["model"]["config"]
    }
    assert said == {field.alias for field in ModelConfig.model_fields.values()}


def test_the_engines_example_needs_no_code() -> None:
    (block,) = re.findall(r"```json\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    vllm.check_is_data(json.loads(block), {}, vllm.ENGINE_FILE)


def test_what_is_refused_is_said_in_the_codes_words() -> None:
    rows = _rows("What is refused")
    words = [phrase for row in rows for phrase in re.findall(r"`([^`]+)`", row[1])]
    assert len(words) >= len(rows) > 15
    assert [phrase for phrase in words if phrase not in CODE] == []


def test_the_limit_of_a_queue_is_the_codes() -> None:
    assert f"{DEFAULT_QUEUE_SIZE} requests where nothing is said" in DOCUMENT


def test_every_linked_file_and_section_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#([^)]+))?\)", DOCUMENT)
    assert links
    for file, section in links:
        text = (ROOT / "docs" / file).read_text()
        titles = {title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)}
        assert not section or section in titles
