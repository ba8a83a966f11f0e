"""What a process takes of the machine, read from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Memory in MiB, processor time in seconds."""

    resident_mib: float
    peak_mib: float
    cpu_seconds: float


def usage(pid: int) -> Usage:
    """What the process takes now; its peak since it started."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Usage(
        resident_mib=int(lines["VmRSS"].split()[0]) / 1024,
        peak_mib=int(lines["VmHWM"].split()[0]) / 1024,
        cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS,
    )
