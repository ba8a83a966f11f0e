"""The sample model on the whole cluster, one version after the other, and what people ask of its rollouts."""

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tests.e2e.conftest import Namespace
from tests.e2e.operators import AFTER_KILL_SECONDS
from tests.load import Result
from tests.support import versions
from tests.support.model_store import ModelStore
from tests.support.waiting import until

NAME: Final = "digits"
ON_CPU: Final[dict[str, Any]] = {"gpu": {"count": 0}}
AT_ONCE: Final = {"keepWarmSeconds": 0}
_FAILURES: Final = ("CandidateFailed", "DeadlineExceeded", "GoldenSetFailed", "AnalysisFailed")
"""Causes that no test asks for while it waits for a version; the others it has caused itself."""


class Model:
    """The sample model in a namespace: two replicas, and one version after the other."""

    def __init__(self, namespace: Namespace, store: ModelStore, **spec: Any) -> None:
        self._namespace = namespace
        self._store = store
        self._spec = {"replicas": 2, **ON_CPU, **spec}
        self._asked: dict[str, Any] = {}
        self._failed_before: set[tuple[str, ...]] = set()
        """Of which failures was known when something was asked for last."""

    def deploy(self, version: int, content: bytes, **rollout: Any) -> None:
        """Ask for a version."""
        path = f"/{self._namespace.name}/{version}{'.onnx' if content == versions.MODEL else '.tar.gz'}"
        self._asked = {
            "uri": self._store.put(path, content),
            "model": {"version": version},
            "rollout": {**AT_ONCE, **rollout},
        }
        self.edit()

    def edit(self, *, replicas: int | None = None, **rollout: Any) -> None:
        """Apply what was asked for last once more, with other replicas or parts of the rollout's policy, if given."""
        if replicas is not None:
            self._spec["replicas"] = replicas
        self._failed_before = set(self._failures())
        self._asked["rollout"] |= rollout
        self._namespace.deploy(NAME, **self._asked, **self._spec)

    def spoil(self, version: int) -> None:
        """Have other bytes where the plain sample model of a version lay: no pod that starts from now on loads it."""
        self._store.put(f"/{self._namespace.name}/{version}.onnx", versions.MODEL + b"\x00")

    def begin(self, content: bytes = versions.MODEL) -> None:
        """Version 1, and wait until it answers."""
        self.deploy(1, content)
        self._namespace.wait_ready(NAME, replicas=self._spec["replicas"])
        self._namespace.wait_answers(NAME)

    @property
    def status(self) -> dict[str, Any]:
        """What the object says."""
        status: dict[str, Any] = self._namespace.mdep(NAME)["status"]
        return status

    @property
    def weights(self) -> list[int]:
        """Of everything that gets requests, most first."""
        return [share["weight"] for share in self.status["traffic"] if share["weight"]]

    @property
    def rejected(self) -> list[str]:
        """Why revisions were given up, oldest first."""
        return [each["cause"] for each in self.status.get("rejected", ())]

    @property
    def checks(self) -> dict[str, dict[str, Any]]:
        """What the checks of the rollout last said, by name."""
        return {check["name"]: check for check in self.status["rollout"].get("checks", ())}

    def pods(self, which: str = "stable") -> dict[str, str]:
        """The pods of the `stable` revision or the `candidate` that are not on their way out: uid by name."""
        workload = self.status[which].get("host") or self.status[which]["workload"]
        return {
            pod["metadata"]["name"]: pod["metadata"]["uid"]
            for pod in self._namespace.pods(NAME)
            if pod["metadata"]["labels"]["conch.dev/workload"] == workload
        }

    def _failures(self) -> dict[tuple[str, ...], str]:
        """Of versions that were given up for a failure of theirs, what is said of it."""
        live = self._namespace.cluster.kubectl(
            *("get", "mdep", NAME, "-n", self._namespace.name, "--ignore-not-found", "-o", "json")
        ).stdout
        status = json.loads(live).get("status", {}) if live.strip() else {}
        rollout = status.get("rollout", {})
        told: list[tuple[tuple[str, ...], dict[str, Any]]] = [
            ((each["revision"], each["at"]), each) for each in status.get("rejected", ())
        ]
        told += [((rollout["id"],), rollout)] if rollout else []
        return {id_: f"{each['cause']}: {each.get('message')}" for id_, each in told if each.get("cause") in _FAILURES}

    def _given_up(self) -> str:
        """Why the version that was asked for last never comes any more, or nothing."""
        news = {told: None for id_, told in self._failures().items() if id_ not in self._failed_before}
        return f"the version was given up: {'; '.join(news)}" if news else ""

    def wait_step(self, *weights: int) -> None:
        """Wait until a step has its share of the traffic."""
        until(
            lambda: self.weights == list(weights),
            f"weights {weights}",
            seconds=AFTER_KILL_SECONDS,
            unless=self._given_up,
        )

    def wait_phase(self, phase: str) -> None:
        """Wait until the rollout is in a phase."""
        until(
            lambda: self.status["rollout"]["phase"] == phase, phase, seconds=AFTER_KILL_SECONDS, unless=self._given_up
        )

    def wait_until_promoted(self) -> None:
        """Wait until nothing but a person's word is missing."""
        self.wait_for_reason("AwaitingPromotion")

    def wait_for_reason(self, reason: str) -> str:
        """Wait until the newest version, which is not given up, waits for this; returns the message."""
        return self._namespace.wait_reason(NAME, reason, seconds=AFTER_KILL_SECONDS, unless=self._given_up)

    def wait_served(self, version: int) -> None:
        """Wait until a version is the stable one, nothing is left of the one before, and it is what is asked for."""
        self.wait_stable(version)
        self._namespace.wait_ready(NAME, replicas=self._spec["replicas"], seconds=AFTER_KILL_SECONDS)

    def wait_stable(self, version: int) -> None:
        """Wait until a version is the stable one, and nothing is left of the one before."""
        until(
            lambda: self.status["stable"]["version"] == version,
            f"version {version}",
            seconds=AFTER_KILL_SECONDS,
            unless=self._given_up,
        )
        until(lambda: len(self.status["traffic"]) == 1, "the version before to be gone", seconds=AFTER_KILL_SECONDS)

    def wait_back(self, cause: str) -> None:
        """Wait until the newest version was given up, and the one before has all of the traffic again."""
        until(lambda: self.rejected[-1:] == [cause], f"a way back: {cause}", seconds=AFTER_KILL_SECONDS)
        until(
            lambda: "candidate" not in self.status and self.weights == [100],
            "everything to be as before",
            seconds=AFTER_KILL_SECONDS,
        )

    def conch(self, *command: str) -> str:
        """What a `conch` command about it prints."""
        environment = {**os.environ, "KUBECONFIG": str(self._namespace.cluster.kubeconfig)}
        program = str(Path(sys.executable).with_name("conch"))
        words = [program, *command, NAME, "-n", self._namespace.name]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout


def lost(result: Result, *, at_most: int = 0) -> str:
    """Why the load that ran during a test may not pass, or nothing."""
    assert result.on_schedule, result.summary()
    assert result.answered > 100, result.summary()
    return result.summary() if result.failed > at_most else ""


def seconds_between(earlier: str, later: str) -> float:
    """Of two of a status's moments."""
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
