"""From a pipeline's YAML file to the models of a repository: the ensemble that clients call, and a model per step."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from conch.packaging.output.tree import ModelFiles
from conch.packaging.pipeline.ensemble import ensemble_config
from conch.packaging.pipeline.step_model import read_step_model
from conch.packaging.pipeline.steps import read_pipeline
from conch.packaging.pipeline.wiring import check_wiring


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedPipeline:
    """What to write."""

    name: str
    """Of the ensemble, which is the model to serve."""
    models: Mapping[str, ModelFiles]
    """By model name: the steps, in the pipeline's order, and the ensemble, last."""


def generate(file: Path, *, version: int = 1) -> GeneratedPipeline:
    """Read and check a pipeline; nothing is written and no step is run. Raises PackagingError."""
    pipeline = read_pipeline(file)
    found = {step.name: read_step_model(pipeline, step, file.parent, version=version) for step in pipeline.steps}
    wiring = check_wiring(pipeline, {name: model.config for name, model in found.items()})
    models = {
        model.config.name: ModelFiles(config=model.config, version=version, files=model.files)
        for model in found.values()
    }
    models[pipeline.name] = ModelFiles(config=ensemble_config(pipeline, wiring), version=version)
    return GeneratedPipeline(name=pipeline.name, models=models)
