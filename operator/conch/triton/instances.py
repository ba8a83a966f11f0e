"""How many instances of a model Triton runs: read from a loaded model's configuration, and written into one to load.

Triton changes `instance_group` of a model that serves without loading it again, if nothing else differs in the
configuration that it is given and no file of the version has changed; requests go on meanwhile, and if it fails (no
memory for another instance), all stays as it was. tests/contract/test_instances.py shows it.
"""

from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import json_format
from tritonclient.grpc.model_config_pb2 import ModelInstanceGroup

from conch.triton.config_pbtxt import is_ensemble

_OURS: Final = "conch_instances_"
"""Begins the name of each group whose count is not its configuration's. The only field of a model that may differ
without making Triton load it anew, so it tells whose count runs, whoever has restarted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceGroups:
    """The instance groups that a loaded model runs with."""

    counts: tuple[int, ...]
    """Of each group; of a group on GPUs, for each of its GPUs."""
    overridden: bool
    """Whether the counts are those it was loaded with, or changed to, in the place of its configuration's."""

    def are(self, assigned: int | None) -> bool:
        """Whether this is what is assigned: so many in each group, or with None what the configuration says."""
        return not self.overridden if assigned is None else all(count == assigned for count in self.counts)


def instance_groups(config: Any) -> InstanceGroups | None:
    """The groups of a loaded model's configuration, which Triton completes; None for an ensemble: it has none."""
    if is_ensemble(config):
        return None
    return InstanceGroups(
        counts=tuple(group.count for group in config.instance_group),
        overridden=any(group.name.startswith(_OURS) for group in config.instance_group),
    )


def instances_at_once(config: Any) -> int:
    """How many batches a loaded model computes at the same time; passive instances get none."""
    return max(1, sum(_at_once(group) for group in config.instance_group if not group.passive))


def config_json(config: Any, *, instances: int | None) -> str:
    """The configuration as Triton's load API takes it, with so many instances in each group; None leaves them."""
    given = type(config)()
    given.CopyFrom(config)
    if instances is not None:
        if not given.instance_group:
            given.instance_group.add()  # of the kind that Triton chooses
        for number, group in enumerate(given.instance_group):
            group.count, group.name = instances, f"{_OURS}{number}"
    return json_format.MessageToJson(given, preserving_proto_field_name=True, indent=None)


def _at_once(group: Any) -> int:
    on_gpus = len(group.gpus) if group.kind == ModelInstanceGroup.KIND_GPU else 1
    return int(group.count) * max(1, on_gpus)
