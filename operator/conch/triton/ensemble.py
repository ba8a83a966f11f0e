"""All models that a pod serves: those that its object names, and what ensembles among them are composed of.

A step's model is the one that the object names so, or the folder of that name beside the ensemble's; through any depth
of ensembles, each once. Members come before what is made of them, which is the order to load them in. Pure planning
over a listing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from conch.api.model import ModelConfig
from conch.triton.config_pbtxt import is_ensemble
from conch.triton.errors import InvalidModelError
from conch.triton.layout import Found, Tree, find_beside

MEMBERS_MOST: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A model to lay out: its name, the version of it that is served, its files and its author's configuration."""

    name: str
    version: int
    found: Found
    config: Any
    overrides: ModelConfig = ModelConfig()  # noqa: RUF009 - immutable
    declared_as: str | None = None
    """The field of the object that names it; None for a step that was found beside its ensemble."""


def composed_of(
    tree: Tree, entry: Member, read_config: Callable[[Found, int], Any], *, further: Sequence[Member] = ()
) -> tuple[Member, ...]:
    """All models, in load order: the entry point is last, so that all are there when it is.

    `read_config` gives the author's configuration of a found model. Raises InvalidModelError for a step whose model or
    version is not in the source, for a circle, and for more than MEMBERS_MOST models.
    """
    settled: dict[str, Member] = {}
    named = {model.name: model for model in (*further, entry)}
    for model in (*further, entry):
        if model.name not in settled:
            _settle(tree, model, read_config, settled, named, above=())
    if list(settled)[-1] != entry.name:
        holder = next(model.name for model in further if entry.name in dict(members(model.config)))
        raise InvalidModelError(
            f"the ensemble {holder!r} has a step of {entry.name!r}, which is spec.model and loaded last; make the "
            "ensemble spec.model and name the other in spec.models"
        )
    return tuple(settled.values())


def members(config: Any) -> Iterator[tuple[str, int | None]]:
    """Name and version of each step's model; None stands for the highest. Empty for a model that is no ensemble."""
    for step in config.ensemble_scheduling.step:
        yield step.model_name, step.model_version if step.model_version > 0 else None


def _settle(
    tree: Tree,
    model: Member,
    read_config: Callable[[Found, int], Any],
    settled: dict[str, Member],
    named: Mapping[str, Member],
    above: tuple[str, ...],
) -> None:
    above = (*above, model.name)
    if is_ensemble(model.config) and not model.config.ensemble_scheduling.step:
        raise InvalidModelError(
            f"the ensemble {model.name!r} has no steps; add ensemble_scheduling to its config.pbtxt"
        )
    for name, version in members(model.config):
        if name in above:
            raise InvalidModelError(f"the ensemble {name!r} is a step of itself ({' -> '.join((*above, name))})")
        declared = named.get(name)
        if declared is not None and version not in (None, declared.version):
            raise InvalidModelError(
                f"the ensemble {model.name!r} has a step of version {version} of {name!r}, and {declared.declared_as} "
                f"serves {declared.version}; let both be the same"
            )
        if (known := settled.get(name)) is not None:
            if version not in (None, known.version):
                raise InvalidModelError(
                    f"steps of {above[0]!r} ask for the versions {known.version} and {version} of {name!r}; one can be "
                    "served: give it two names"
                )
            if declared is None and (own := find_beside(tree, model.found, name)) and own.root != known.found.root:
                raise InvalidModelError(
                    f"two sources have a model {name!r} for a step of theirs, {known.found.root} and {own.root}; one "
                    "can be served under that name: rename one of them, or name the right one in spec.models"
                )
            continue
        if len(settled) + len(above) >= MEMBERS_MOST:
            raise InvalidModelError(f"{above[0]!r} is composed of more than {MEMBERS_MOST} models")
        member = declared or _beside(tree, model, name, version, read_config, above[0])
        _settle(tree, member, read_config, settled, named, above)
    settled[model.name] = model


def _beside(
    tree: Tree,
    model: Member,
    name: str,
    version: int | None,
    read_config: Callable[[Found, int], Any],
    entry: str,
) -> Member:
    found = find_beside(tree, model.found, name)
    if found is None:
        raise InvalidModelError(
            f"the ensemble {model.name!r} has a step of the model {name!r}, which is not in the source; put its "
            "folder beside the ensemble's, or name it in spec.models with a source of its own"
        )
    chosen = version or _version(found, name, entry, entry_version=model.version)
    return Member(name=name, version=chosen, found=found, config=read_config(found, chosen))


def _version(found: Found, name: str, entry: str, *, entry_version: int) -> int:
    """The version of the entry point where the member has it, else its highest."""
    versions = found.tree.versions
    if entry_version in versions:
        return entry_version
    if not versions:
        # An ensemble's version folders are empty, and get lost.
        if found.has_config:
            return entry_version
        raise InvalidModelError(f"the model {name!r}, a step of {entry!r}, has no version folder such as {name}/1")
    return versions[-1]
