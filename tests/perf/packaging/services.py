"""The services that are compared, each a process: a text in, its label and score out, over HTTP with JSON."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx2

from tests.cluster.constants import REPOSITORY
from tests.cluster.ports import free_port
from tests.contract.processes import Process
from tests.contract.served_repository import ServedRepository
from tests.packaging.samples import SAMPLES
from tests.perf.packaging.load import Service
from tests.perf.packaging.samples import Packaged
from tests.support.waiting import until

FLASK: Final = "Flask"
FLASK_TUNED: Final = "Flask, tuned"
TRITON: Final = "Triton"
TRITON_INT8: Final = "Triton, int8"
REFERENCES: Final = (FLASK, FLASK_TUNED)
_ASKED: Final = 40
_TOLERANCE: Final = 1e-4
"""Between torch and onnxruntime, of a score in fp32."""
_START_SECONDS_MOST: Final = 180.0
_MODEL: Final = "text"


@contextmanager
def services(versions: Mapping[int, Packaged], folder: Path) -> Iterator[dict[str, Service]]:
    """All of them, running and idle; the text sample's versions by number. Their answers have been compared."""
    trained = versions[1].trained
    with ExitStack() as stack:
        running = {
            FLASK: stack.enter_context(_flask(folder / "flask", trained)),
            FLASK_TUNED: stack.enter_context(_flask(folder / "flask-tuned", trained, tuned=True)),
            TRITON: stack.enter_context(_triton(folder / "triton", versions[1].repository)),
        }
        if versions[2].told["kept"]["name"] != versions[2].variants[0]["name"]:
            running[TRITON_INT8] = stack.enter_context(_triton(folder / "triton-2", versions[2].repository))
        texts = texts_of(trained)
        answers = {name: [_answer(service, text) for text in texts[:_ASKED]] for name, service in running.items()}
        for name in (FLASK_TUNED, TRITON):
            for (label, score), (wanted, wanted_score) in zip(answers[name], answers[FLASK], strict=True):
                assert label == wanted, (name, label, wanted)
                assert abs(score - wanted_score) < _TOLERANCE, (name, score, wanted_score)
        yield running


def texts_of(trained: Path) -> list[str]:
    """The held-out ones."""
    import numpy as np

    with np.load(trained / "test.npz") as arrays:
        return [str(text) for text in arrays["text"]]


@contextmanager
def _flask(folder: Path, trained: Path, *, tuned: bool = False) -> Iterator[Service]:
    folder.mkdir()
    port = free_port()
    process = Process(folder / "server.log")
    command = [sys.executable, "-m", "tests.perf.packaging.flask_server", f"{SAMPLES / _MODEL / 'train.py'}:net"]
    # Without what the environment with torch sets for tests: torch shall take its own default.
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["PYTHONPATH"] = os.pathsep.join((str(REPOSITORY / "operator"), str(REPOSITORY)))
    process.spawn([*command, str(trained), str(port), *(["--tuned"] if tuned else [])], environment)
    try:
        service = Service(
            url=f"http://127.0.0.1:{port}/classify", before='{"text": ', after="}", answered_with='"label"'
        )
        until(lambda: _is_there(service, process), f"Flask; see {process.log}", seconds=_START_SECONDS_MOST)
        yield service
    finally:
        process.stop(9)


@contextmanager
def _triton(folder: Path, repository: Path) -> Iterator[Service]:
    folder.mkdir()
    server = ServedRepository(folder, repository)
    server.start()
    try:
        server.load(_MODEL)
        tensor = '{"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1, 1], "data": ['
        yield Service(
            url=f"http://127.0.0.1:{server.http}/v2/models/{_MODEL}/infer",
            before=tensor,
            after="]}]}",
            answered_with='"LABEL"',
        )
    finally:
        server.stop(9)


def _is_there(service: Service, process: Process) -> bool:
    assert process.process is not None
    assert process.process.poll() is None, process.log.read_text()[-2000:]
    return bool(_answer(service, "a text")[0])


def _answer(service: Service, text: str) -> tuple[str, float]:
    """Label and score."""
    response = httpx2.post(service.url, content=service.body(text), headers={"Content-Type": "application/json"})
    assert response.status_code == 200, response.text
    told: dict[str, Any] = json.loads(response.text)
    if "outputs" in told:
        told = {output["name"].lower(): output["data"][0] for output in told["outputs"]}
    return str(told["label"]), float(told["score"])
