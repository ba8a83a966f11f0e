"""A network namespace that holds only loopback: whatever the benchmark sends, nothing leaves the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from tests.cluster import binaries, preconditions

POD_RANGE = "10.64.0.0/12"
"""Addresses of the fake pods; inside the namespace every one of them is this machine."""

_MARK = "CONCH_BENCH_NAMESPACE"


def enter(module: str, *, programs: Sequence[str] = ()) -> None:
    """Return inside such a namespace. Outside, this process is replaced by `module` run in a new one.

    Whatever has to be fetched for `programs` (and this machine's packages for them) is fetched before.

    The namespace is the process's own and goes with it: there is nothing to clean up. Needs root.
    """
    if programs:
        preconditions.check()
        preconditions.install_packages()
        binaries.ensure(*programs)
    if os.environ.get(_MARK) != str(os.getpid()):
        # unshare replaces itself by the command, so the pid stays the same: an inherited mark does not count.
        os.environ[_MARK] = str(os.getpid())
        os.execvp("unshare", ["unshare", "--net", sys.executable, "-m", module, *sys.argv[1:]])  # noqa: S606 - no shell is the point
    for command in (("link", "set", "lo", "up"), ("route", "add", "local", POD_RANGE, "dev", "lo")):
        subprocess.run(["ip", *command], check=True)
