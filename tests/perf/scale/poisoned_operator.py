"""`conch operator` with a planner that raises for one object: no spec that the CRD admits makes the real one raise."""

import sys
from typing import Any

from conch import cli
from conch.app import reconcile
from conch.core.plan import Plan, plan

POISON = "poison"


def _plan(**arguments: Any) -> Plan:
    if arguments["owner"].name == POISON:
        raise ValueError("a planner's bug")
    return plan(**arguments)


if __name__ == "__main__":
    vars(reconcile)["plan"] = _plan
    sys.argv[0] = "conch"
    cli.main()
