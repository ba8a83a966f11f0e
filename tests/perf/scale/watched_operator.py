"""`conch operator` that also prints when it decides on more servers, and when it had the gateways' last word before."""

import json
import sys
import time
from typing import Any, Final

from conch import cli
from conch.app import autoscaler
from conch.app.autoscaler import Autoscaler
from conch.app.gateway_reports import GatewayReports
from conch.core.scaling.decide import Decision, decide
from conch.core.scaling.state import ScalingState
from conch.kube.reflector import ObjectKey

MARK: Final = "scaled-up "
"""What its lines begin with; JSON follows: name, at, word_at (seconds since the epoch)."""

_take, _look = GatewayReports._take, Autoscaler.look


class _Watch:
    def __init__(self) -> None:
        self.word_at = 0.0
        self.name = ""

    def take(self, reports: GatewayReports, name: str, body: bytes, counted: float | None) -> None:
        # Before it is read: reading it is part of what is measured.
        self.word_at = time.time()
        _take(reports, name, body, counted)

    def look(self, scaler: Autoscaler, key: ObjectKey) -> None:
        self.name = key[1]
        _look(scaler, key)

    def decide(self, now: float, settings: Any, state: ScalingState, signals: Any) -> Decision:
        decision = decide(now, settings, state, signals)
        if decision.desired > state.desired:
            told = {"name": self.name, "at": time.time(), "word_at": self.word_at}
            print(MARK + json.dumps(told), flush=True)
        return decision


if __name__ == "__main__":
    watch = _Watch()
    vars(autoscaler)["decide"] = watch.decide
    GatewayReports._take = lambda *arguments: watch.take(*arguments)  # type: ignore[method-assign]  # a stand-in
    Autoscaler.look = lambda *arguments: watch.look(*arguments)  # type: ignore[method-assign]  # a stand-in
    sys.argv[0] = "conch"
    cli.main()
