"""What an ensemble is composed of: found beside it, each once, in load order; and what is refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import pytest

from conch.agent.errors import StepError
from conch.agent.settings import AgentSettings
from conch.agent.state import LoadedVersion
from conch.agent.step_kinds import LayOut
from conch.agent.steps import Steps
from conch.agent.volume import Volume
from conch.agent.wanted import Wanted
from conch.api.assignment import AssignedModel, Assignment
from conch.api.model import ModelConfig, ModelFormat, ModelSource
from conch.triton.config_pbtxt import parse_config, served_config
from conch.triton.ensemble import MEMBERS_MOST, Member, composed_of
from conch.triton.errors import InvalidModelError
from conch.triton.layout import Found, Tree, find_model, find_within, plan_layout

ASSIGNMENT: Final = Assignment(
    revision="r", name="whole", version=1, source=ModelSource(uri="https://h.example/m.tar.gz")
)


def ensemble(*steps: str) -> str:
    """A config.pbtxt; a step is `name` or `name@version`."""
    lines = []
    for step in steps:
        name, _, version = step.partition("@")
        lines.append(f'step {{ model_name: "{name}" model_version: {version or -1} }}')
    return f'platform: "ensemble" ensemble_scheduling {{ {" ".join(lines)} }}'


def settled(
    configs: Mapping[str, str], *files: str, name: str = "whole", version: int = 1, folder: str = ""
) -> tuple[Member, ...]:
    tree = Tree.of([*(f"{folder}{model}/config.pbtxt" for model in configs), *(folder + file for file in files)])

    def read(found: Found, _version: int) -> Any:
        return parse_config(configs[found.root.removeprefix(folder)])

    found = find_model(tree, name=name, format=ModelFormat.AUTO)
    entry = Member(name=name, version=version, found=found, config=read(found, version))
    return composed_of(tree, entry, read)


def served(*models: tuple[str, str, int], entry: str = "whole") -> tuple[Member, ...]:
    """What a pod serves whose object names these (name, config.pbtxt, version), each with a source of its own."""
    tree = Tree.of([f"{name}/{file}" for name, _, version in models for file in ("config.pbtxt", f"{version}/m")])

    def member(name: str, config: str, version: int) -> Member:
        found = find_within(tree, name, name=name, format=ModelFormat.AUTO)
        return Member(
            name=name, version=version, found=found, config=parse_config(config), declared_as=f"spec.models[{name}]"
        )

    named = {name: member(name, config, version) for name, config, version in models}
    further = [each for name, each in named.items() if name != entry]
    return composed_of(tree, named[entry], lambda _found, _version: parse_config(""), further=further)


def order(members: tuple[Member, ...]) -> list[tuple[str, int]]:
    return [(member.name, member.version) for member in members]


def test_a_model_that_is_no_ensemble_is_alone() -> None:
    assert order(settled({"whole": 'backend: "onnxruntime"', "other": ""}, "whole/1/model.onnx")) == [("whole", 1)]


@pytest.mark.parametrize("folder", ["", "packed/"])
def test_members_come_before_what_is_made_of_them_and_each_once(folder: str) -> None:
    configs = {
        "whole": ensemble("inner", "last"),
        "inner": ensemble("first", "last"),
        "first": 'backend: "python"',
        "last": 'backend: "onnxruntime"',
        "stranger": "",
    }
    members = settled(configs, "first/1/model.py", "last/1/model.onnx", "stranger/1/model.onnx", folder=folder)
    assert order(members) == [("first", 1), ("last", 1), ("inner", 1), ("whole", 1)]
    assert plan_layout(members[0].found, version=1).links == {"1/model.py": f"{folder}first/1/model.py"}


def test_the_version_is_the_steps_else_the_entry_points_else_the_highest() -> None:
    configs = {"whole": ensemble("a@1", "b", "c"), "a": "", "b": "", "c": ""}
    files = ["a/1/model.onnx", "a/2/model.onnx", "b/1/model.onnx", "b/2/model.onnx", "b/3/model.onnx"]
    members = settled(configs, *files, "c/1/model.onnx", version=2)
    assert order(members) == [("a", 1), ("b", 2), ("c", 1), ("whole", 2)]


@pytest.mark.parametrize(
    ("configs", "files", "message"),
    [
        ({"whole": ensemble("gone")}, (), "'whole' has a step of the model 'gone', which is not in the source"),
        ({"whole": ensemble("../x"), "x": ""}, ("x/1/model.onnx",), r"the model '\.\./x', which is not in the source"),
        ({"whole": ensemble()}, (), "'whole' has no steps"),
        ({"whole": ensemble("whole")}, (), r"'whole' is a step of itself \(whole -> whole\)"),
        ({"whole": ensemble("a"), "a": ensemble("whole")}, (), r"step of itself \(whole -> a -> whole\)"),
        (
            {"whole": ensemble("a@1", "a@2"), "a": ""},
            ("a/1/model.onnx", "a/2/model.onnx"),
            "the versions 1 and 2 of 'a'; one can be served",
        ),
        (
            {"whole": ensemble(*(f"m{i}" for i in range(MEMBERS_MOST))), **{f"m{i}": "" for i in range(MEMBERS_MOST)}},
            tuple(f"m{i}/1/model.onnx" for i in range(MEMBERS_MOST)),
            f"more than {MEMBERS_MOST} models",
        ),
    ],
)
def test_what_is_refused(configs: dict[str, str], files: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidModelError, match=message):
        settled(configs, *files)


def test_an_ensemble_alone_in_its_source_has_no_members() -> None:
    tree = Tree.of(["config.pbtxt"])
    config = parse_config(ensemble("a"))
    entry = Member(name="whole", version=1, found=Found(root="", tree=tree), config=config)
    with pytest.raises(InvalidModelError, match="put its folder beside the ensemble's"):
        composed_of(tree, entry, lambda _found, _version: config)


def test_models_that_the_object_names_come_before_the_one_that_it_serves() -> None:
    assert order(served(("whole", "", 3), ("b", "", 1), ("a", "", 2))) == [("b", 1), ("a", 2), ("whole", 3)]


def test_a_step_is_the_model_that_the_object_names_so() -> None:
    members = served(("whole", ensemble("a@2", "b"), 1), ("b", ensemble("a"), 1), ("a", "", 2))
    assert order(members) == [("a", 2), ("b", 1), ("whole", 1)]
    assert members[0].found.root == "a"


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (
            [("whole", ensemble("a@3"), 1), ("a", "", 2)],
            r"a step of version 3 of 'a', and spec.models\[a\] serves 2; let both be the same",
        ),
        ([("whole", ensemble("c"), 1), ("a", "", 2)], "or name it in spec.models with a source of its own"),
        ([("whole", "", 1), ("a", ensemble("whole"), 1)], "'a' has a step of 'whole', which is spec.model"),
        ([("whole", "", 1), ("a", ensemble("b"), 1), ("b", ensemble("a"), 1)], r"step of itself \(a -> b -> a\)"),
    ],
)
def test_what_is_refused_of_named_models(models: list[tuple[str, str, int]], message: str) -> None:
    with pytest.raises(InvalidModelError, match=message):
        served(*models)


def test_a_step_is_not_taken_from_another_source_for_its_name() -> None:
    tree = Tree.of(
        [f"{source}/{file}" for source in ("a", "b") for file in (f"{source}/config.pbtxt", "step/1/model.onnx")]
    )
    whole = ensemble("step")

    def member(name: str) -> Member:
        found = find_within(tree, name, name=name, format=ModelFormat.AUTO)
        return Member(name=name, version=1, found=found, config=parse_config(whole), declared_as=f"of {name}")

    with pytest.raises(
        InvalidModelError, match="two sources have a model 'step' for a step of theirs, b/step and a/step"
    ):
        composed_of(tree, member("a"), lambda _found, _version: parse_config(""), further=[member("b")])


def test_a_members_version_that_is_not_there_is_said_of_the_member() -> None:
    (member, _) = settled({"whole": ensemble("a@3"), "a": ""}, "a/1/model.onnx")
    with pytest.raises(InvalidModelError, match="no version 3; it has 1; set model_version of the step to one"):
        plan_layout(member.found, version=member.version, is_step=member.declared_as is None)


def test_a_members_name_is_not_the_objects_to_change() -> None:
    with pytest.raises(InvalidModelError, match=r"names it 'b', not 'a'; remove the name from config.pbtxt$"):
        served_config(parse_config('name: "b"'), ModelConfig(), name="a", version=1, layout="k", is_step=True)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('name: "b"', "the step 'a': the model's config.pbtxt names it 'b', not 'a'; remove"),
        ("input {", "the step 'a': the model's config.pbtxt is not valid"),
    ],
)
async def test_a_refusal_names_the_step(tmp_path: Path, config: str, message: str) -> None:
    volume = Volume(tmp_path, boot="b")
    volume.prepare()
    wanted = Wanted.of(ASSIGNMENT)
    for name, text in (("whole", ensemble("a")), ("a", config)):
        (volume.tree(wanted.fetch_key) / name / "1").mkdir(parents=True)
        (volume.tree(wanted.fetch_key) / name / "config.pbtxt").write_text(text)
    with pytest.raises(StepError, match=message):
        await steps(volume, cast(Any, None)).run(LayOut(wanted=wanted))


async def test_a_refusal_names_the_field_of_its_model(tmp_path: Path) -> None:
    volume = Volume(tmp_path, boot="b")
    volume.prepare()
    model = AssignedModel(name="a", version=2, source=ModelSource(uri="https://h.example/a"))
    wanted = Wanted.of(ASSIGNMENT.model_copy(update={"models": (model,)}))
    tree = volume.tree(wanted.fetch_key)
    for folder in ("whole/1", "a/1"):
        (tree / folder).mkdir(parents=True)
    with pytest.raises(StepError, match=r"^the model 'a': .* no version 2; it has 1; set spec.models\[0\].version to"):
        await steps(volume, cast(Any, None)).run(LayOut(wanted=wanted))
    (tree / "a" / "1").rmdir()
    for folder in ("a/one/1", "a/other/1"):
        (tree / folder).mkdir(parents=True)
    with pytest.raises(StepError, match=r"^the model 'a': .* set spec.models\[0\].name to the one to serve"):
        await steps(volume, cast(Any, None)).run(LayOut(wanted=wanted))


async def test_each_member_is_asked_once(tmp_path: Path) -> None:
    """Of ensembles of ensembles: else the questions would double with every level."""
    depth = 30
    configs = {f"e{number}": ensemble(f"e{number + 1}", f"e{number + 1}") for number in range(depth)}
    triton = FakeTriton({"whole": ensemble("e0", "e0"), **configs, f"e{depth}": ""})
    server = await steps(Volume(tmp_path, boot="b"), triton).observe(Wanted.of(ASSIGNMENT))
    assert server.versions[0].ready
    assert triton.asked == ["whole", *(f"e{number}" for number in range(depth + 1))]


class FakeTriton:
    """Tells of its models, all of which are ready."""

    def __init__(self, configs: dict[str, str]) -> None:
        self._configs = configs
        self.asked: list[str] = []

    async def index(self) -> list[LoadedVersion]:
        return [LoadedVersion(name="whole", version="1", state="READY")]

    async def config(self, name: str, _version: int | None) -> Any:
        self.asked.append(name)
        return parse_config(self._configs[name])

    async def version_ready(self, _name: str, _version: int | None) -> bool:
        return True


def steps(volume: Volume, triton: Any) -> Steps:
    settings = AgentSettings(admin_key="k")
    return Steps(settings, volume, triton, cast(Any, None), cast(Any, None), clock=lambda: 0.0)
