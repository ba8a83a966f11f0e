"""What the next run must know about this machine's cluster, whichever checkout and however brutally it was ended."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.cluster.constants import CHECKOUT_STATE, RUN, STATE
from tests.cluster.processes import Processes, boot_id

_RECORD = STATE / "machine.json"


@dataclass(slots=True, kw_only=True)
class MachineRecord:
    """Written before anything is changed, so that a run killed at any line can be cleaned up after."""

    checkout_state: str
    """The `.cluster` folder that kubeconfig and logs were put into; of another checkout, perhaps."""
    boot: str
    sysctls: dict[str, str] = field(default_factory=dict)
    """Values before we changed them."""
    made: list[str] = field(default_factory=list)
    """Folders outside ours that parts have fixed paths in and that did not exist before."""
    configuration: str = ""
    """The hash of what runs; empty until everything was ready once."""

    def write(self) -> None:
        """Replaces the record on disk."""
        STATE.mkdir(parents=True, exist_ok=True, mode=0o711)
        temporary = _RECORD.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(self), indent=2))
        temporary.replace(_RECORD)


FIXED_PATHS = (Path("/var/lib/kubelet"), Path("/var/log/containers"), Path("/var/lib/cni"))
"""Paths that the kubelet and the CNI library let nobody change."""


def new_record() -> MachineRecord:
    """For this checkout, now."""
    return MachineRecord(
        checkout_state=str(CHECKOUT_STATE),
        boot=boot_id(),
        made=[str(path) for path in FIXED_PATHS if not path.exists()],
    )


def read() -> MachineRecord | None:
    """The record of the machine's cluster; None when there is none."""
    try:
        return MachineRecord(**json.loads(_RECORD.read_text()))
    except FileNotFoundError:
        return None


def processes(record: MachineRecord | None = None) -> Processes:
    """The daemons of the machine's cluster."""
    logs = Path(record.checkout_state) if record else CHECKOUT_STATE
    return Processes(records=RUN / "processes", logs=logs / "logs")
