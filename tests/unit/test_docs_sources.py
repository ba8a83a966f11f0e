"""docs/sources.md says of sources only what the code does."""

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml

from conch.api.model import ModelSource
from conch.api.model_deployment import InvalidSpec, parse_spec
from conch.api.reasons import Reason
from conch.api.source import SCHEMES, parse_source_uri
from conch.api.status import ConditionType, ModelDeploymentStatus
from conch.cli import app
from conch.settings import ModelCacheSettings
from conch.store import credentials, http_client, registry_login
from conch.store.sources import buckets, https, hugging_face, oci

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "operator" / "conch"
DOCUMENT = (ROOT / "docs" / "sources.md").read_text()
MINIMAL = {"version": 1, "source": {"uri": "https://models.example.com/m.onnx"}}
REASONS_OF_THE_MODEL = {reason for reason in Reason if reason.name.startswith(("SOURCE_", "MODEL_"))} | {
    Reason.DIGEST_MISMATCH,
    Reason.INVALID_MODEL,
    Reason.OUT_OF_GPU_MEMORY,
    Reason.VOLUME_UNAVAILABLE,
}

NOTHING_TO_DO = {
    *(Reason.SERVING, Reason.SUSPENDED, Reason.AS_EXPECTED, Reason.NOT_OBSERVED, Reason.NO_REPLICAS),
    *(Reason.SCALED_TO_ZERO, Reason.ROUTED, Reason.COMMAND_ACCEPTED, Reason.COMMAND_REFUSED),
}
"""Of conditions and Events that are as somebody wants them, or answer somebody."""

READERS = (buckets, credentials, http_client, hugging_face, https, oci, registry_login)
"""The modules that read a Secret's entries."""
CLOUD_KEY = re.compile(r"(AWS|AZURE|GOOGLE|HF)(_[A-Z]+)+")


def _section(title: str) -> str:
    return DOCUMENT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def _rows(title: str) -> list[list[str]]:
    """The cells of a section's tables."""
    lines = [line for line in _section(title).splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, flags=re.DOTALL)


def _shell_lines() -> list[str]:
    return [line for block in _blocks("bash") for line in block.splitlines() if line]


def _keys_of_the_table() -> set[str]:
    kinds = {"s3", "gs", "az", "https", "hf", "oci", "all"}
    cells = [row[1] for row in _rows("Credentials") if row[0] in kinds]
    assert len(cells) == len(kinds)
    return {key for cell in cells for key in re.findall(r"`([^`]+)`", cell)}


def _values(node: ast.AST, module: ModuleType, tree: ast.Module) -> set[str]:
    """What an argument is: a constant, a name of the module's, or each of what a comprehension goes through."""
    if isinstance(node, ast.Constant):
        return {str(node.value)}
    assert isinstance(node, ast.Name | ast.JoinedStr), ast.dump(node)
    if isinstance(node, ast.JoinedStr):
        return set()
    if isinstance(named := getattr(module, node.id, None), str):
        return {named}
    loops = [each for each in ast.walk(tree) if isinstance(each, ast.comprehension | ast.For)]
    through = [each.iter for each in loops if isinstance(each.target, ast.Name) and each.target.id == node.id]
    return {str(each.value) for loop in through for each in ast.walk(loop) if isinstance(each, ast.Constant)}


def _read_by(module: ModuleType) -> Iterator[str]:
    """The entries that a module reads, by how it reads them; or, a cloud's, by what they look like."""
    tree = ast.parse(inspect.getsource(module))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and CLOUD_KEY.fullmatch(str(node.value)):
            yield str(node.value)
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id == "bearer":
            yield from _values(node.args[1], module, tree)
        elif ast.unparse(node.func).endswith(("credentials.get", "known.get")):
            yield from _values(node.args[0], module, tree)


def _click(arguments: list[str]) -> dict[str, Any]:
    """The parameters that the command line takes these arguments for; nothing is run."""
    group: Any = typer.main.get_command(app)
    context = group.make_context("conch", list(arguments))
    name, command, rest = group.resolve_command(context, list(arguments))
    parameters: dict[str, Any] = command.make_context(name, rest, parent=context).params
    return parameters


def test_every_kind_of_source_has_a_row_whose_example_is_one() -> None:
    examples = [uri for row in _rows("Sources") for uri in re.findall(r"`([a-z0-9]+://[^`]+)`", row[1])]
    assert {parse_source_uri(uri).scheme for uri in examples} == set(SCHEMES)


def test_the_reasons_are_those_that_a_source_may_have() -> None:
    rows = [row for row in _rows("Reasons") if row[0] != "reason"]
    assert {Reason(row[0]) for row in rows} == REASONS_OF_THE_MODEL
    assert all(len(row) == 3 and all(row) for row in rows)


def test_every_other_reason_that_asks_for_something_is_told_too() -> None:
    rows = [row for row in _rows("Conditions, and the other reasons") if len(row) == 2 and row[0] != "reason"]
    conditions = {condition.value for condition in ConditionType}
    told = {name.strip() for row in rows for name in row[0].split(",")} - conditions - {"condition"}
    others = set(Reason) - REASONS_OF_THE_MODEL - NOTHING_TO_DO
    assert told == {reason.value for reason in others}


def test_every_key_of_the_table_is_one_that_the_code_knows() -> None:
    files = [*(PACKAGE / "store").rglob("*.py"), PACKAGE / "api" / "model.py"]
    code = "".join(file.read_text() for file in files)
    assert [key for key in sorted(_keys_of_the_table()) if key not in code] == []


def test_the_table_has_every_key_that_the_code_reads() -> None:
    read = {key for module in READERS for key in _read_by(module)} - buckets.IDENTITY_FILES
    assert {"AWS_ACCESS_KEY_ID", "HF_TOKEN", "token", "username", "ca.crt", ".dockerconfigjson"} <= read
    assert read <= _keys_of_the_table()


def test_the_table_has_the_keys_that_the_api_describes() -> None:
    description = str(ModelSource.model_fields["credentials_secret_ref"].description)
    described = set(
        re.findall(r"[A-Z]+(?:_[A-Z]+)+|\.dockerconfigjson|ca\.crt|username|password|\btoken\b", description)
    )
    assert described == _keys_of_the_table()


def test_every_secret_is_made_of_keys_of_the_table() -> None:
    made = [line for line in _shell_lines() if line.startswith("kubectl create secret generic ")]
    keys = {key for line in made for key in re.findall(r"--from-(?:literal|file)=([^= ]+)", line)}
    assert made
    assert keys <= _keys_of_the_table()


@pytest.mark.parametrize("block", _blocks("yaml"), ids=lambda block: block.split(":")[0])
def test_every_yaml_block_is_a_valid_part(block: str) -> None:
    part = yaml.safe_load(block)
    if part.keys() == {"source"}:
        ModelSource.model_validate(part["source"])
    elif part.keys() == {"modelCache"}:
        ModelCacheSettings.model_validate(part["modelCache"])
    elif part.get("kind") == "PersistentVolumeClaim":
        assert f"modelCache: {{claimName: {part['metadata']['name']}," in DOCUMENT
    elif part.keys() == {"status"}:
        ModelDeploymentStatus.model_validate(part["status"])
    else:
        spec = parse_spec({"model": MINIMAL, **part})
        assert not isinstance(spec, InvalidSpec), spec


def test_every_shell_line_can_be_parsed() -> None:
    assert _shell_lines()
    for line in _shell_lines():
        shlex.split(line, comments=True)


def _conch_lines() -> list[str]:
    inline = re.findall(r"`(conch [^`]+)`", re.sub(r"```.*?```", "", DOCUMENT, flags=re.DOTALL))
    return [line for line in dict.fromkeys([*_shell_lines(), *inline]) if re.match(r"conch [a-z]+ ", line)]


@pytest.mark.parametrize("line", _conch_lines())
def test_every_conch_command_is_one(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("models/sentiment", "DIR"):
        Path(folder).mkdir(parents=True)
    assert _click(shlex.split(line)[1:])


def test_each_kind_of_source_is_pushed_in_an_example() -> None:
    pushed = [shlex.split(line)[3] for line in _shell_lines() if line.startswith("conch push ")]
    assert {parse_source_uri(uri).scheme for uri in pushed} == set(SCHEMES) - {"http"}


def test_a_command_that_is_none_would_be_noticed(tmp_path: Path) -> None:
    for arguments in (["push", str(tmp_path), "s3://a/b", "--no-such-option"], ["no-such-command"], ["why"]):
        with pytest.raises(Exception, match=r"(?i)no such|missing"):
            _click(arguments)


def test_every_linked_file_exists() -> None:
    links = re.findall(r"\]\(([^)]+)\)", DOCUMENT)
    assert links
    files = [(ROOT / "docs" / link.partition("#")[0], link.partition("#")[2]) for link in links]
    assert [file for file, _ in files if not file.exists()] == []
    assert [(file, place) for file, place in files if place and place not in _places(file)] == []


def _places(file: Path) -> set[str]:
    """What a link into a document can name: its titles, as they are shown on the web."""
    titles = re.findall(r"^#+ (.*)$", file.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
