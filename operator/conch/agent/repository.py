"""The repository that Triton reads: made from a fetched tree, and checked again before anything of it is loaded."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from typing import Any

from conch.agent.errors import RefusedError
from conch.agent.preparing import COMPOSED
from conch.agent.settings import AgentSettings
from conch.agent.volume import Volume
from conch.agent.wanted import Wanted
from conch.api.assignment import AssignedModel
from conch.store.threads import Checkpoint, never_interrupted
from conch.triton.allowed import settle_backend
from conch.triton.author_config import author_config
from conch.triton.config_pbtxt import format_config, is_ensemble, parse_config, served_config
from conch.triton.content import settle_content
from conch.triton.cpu_share import fit_to_cpus
from conch.triton.ensemble import Member, composed_of, members
from conch.triton.ensemble_tensors import check_steps
from conch.triton.errors import UnservableModelError
from conch.triton.layout import CONFIG, Found, Tree, find_within, make_layout, plan_layout, read_tree
from conch.triton.own_paths import Place


class Repository:
    """The models of one volume as Triton is to see them. Blocks."""

    def __init__(self, settings: AgentSettings, volume: Volume) -> None:
        self._settings = settings
        self._volume = volume

    def lay_out(self, wanted: Wanted, checkpoint: Checkpoint = never_interrupted) -> None:
        """Make the assigned models from the fetched tree. Raises UnservableModelError, OSError."""
        assignment = wanted.assignment
        fetched = self._volume.tree(wanted.fetch_key)
        tree = read_tree(fetched)

        def read_config(found: Found, version: int) -> Any:
            with _said_of(f"the step {PurePosixPath(found.root).name!r}", None):
                return author_config(found, fetched, version)

        further = [
            _declared(model, tree, fetched, folder=model.name, declared_as=f"spec.models[{index}]")
            for index, model in enumerate(assignment.models)
        ]
        entry = _declared(assignment, tree, fetched, folder=assignment.folder, declared_as="spec.model")
        models = composed_of(tree, entry, read_config, further=further)
        if wanted.is_trial and len(models) > 1:
            raise RefusedError(COMPOSED)
        settled: dict[str, Any] = {}
        with self._volume.scratch() as folder:
            for model in models:
                with _said_of(_role(model), model.declared_as) if model is not entry else nullcontext():
                    layout = plan_layout(
                        model.found,
                        version=model.version,
                        is_ensemble=is_ensemble(model.config),
                        is_step=model.declared_as is None,
                    )
                    config = served_config(
                        model.config,
                        model.overrides,
                        name=model.name,
                        version=model.version,
                        layout=wanted.layout_key,
                        is_step=model.declared_as is None,
                    )
                    name = config.name = wanted.name if model is entry else model.name
                    settle_backend(config, layout.links, assignment.source_policy)
                    files = {file: fetched / source for file, source in layout.links.items()}
                    written = settle_content(
                        config,
                        files,
                        self._place(name, model.version, files),
                        assignment.source_policy,
                        is_member=model.declared_as is None,
                    )
                    settled[model.name] = config
                    check_steps(config, settled)
                if self._settings.triton_cpus is not None:
                    own = assignment.instances if model is entry else None
                    fit_to_cpus(config, cpus=self._settings.triton_cpus, instances=own)
                make_layout(layout, fetched, folder / name, written)
                (folder / name / CONFIG).write_text(format_config(config))
            checkpoint()
            names = [wanted.name if model is entry else model.name for model in models]
            self._volume.keep_layout(wanted.layout_key, folder, names)

    def _place(self, name: str, version: int, files: Collection[str]) -> Place:
        """Where Triton sees a model: it has the volume where the agent has it."""
        return Place(folder=str(self._volume.repository / name), version=version, files=files)

    def checked_models(self, wanted: Wanted) -> list[str]:
        """The models to load, in this order: further ones, what the assigned one is composed of, and itself.

        What lies on the volume was allowed when it was laid out; it is loaded only if it is allowed now.
        """
        ordered: dict[str, None] = {}

        def settle(name: str) -> None:
            model = self._volume.repository / name
            config = parse_config((model / CONFIG).read_text())
            files = {file: model / file for file in read_tree(model).files - {CONFIG}}
            settle_backend(config, files, wanted.assignment.source_policy)
            (version,) = config.version_policy.specific.versions
            settle_content(config, files, self._place(name, version, files), wanted.assignment.source_policy)
            for member, _ in members(config):
                if member not in ordered:
                    settle(member)
            ordered[name] = None

        for served, _ in wanted.served:
            if served not in ordered:
                settle(served)
        return list(ordered)


@contextmanager
def _said_of(role: str, field: str | None) -> Iterator[None]:
    """Says of which model a refusal is."""
    try:
        yield
    except UnservableModelError as error:
        raise error.of(role, field) from error


def _role(model: Member) -> str:
    return f"the model {model.name!r}" if model.declared_as else f"the step {model.name!r}"


def _declared(model: AssignedModel, tree: Tree, fetched: Path, *, folder: str, declared_as: str) -> Member:
    """A model that the object names, whose files lie in `folder` of the fetched tree."""
    with _said_of(f"the model {model.name!r}", declared_as) if folder else nullcontext():
        found = find_within(tree, folder, name=model.name, format=model.format)
        author = author_config(found, fetched, model.version, model.config)
    return Member(
        name=model.name,
        version=model.version,
        found=found,
        config=author,
        overrides=model.config,
        declared_as=declared_as,
    )
