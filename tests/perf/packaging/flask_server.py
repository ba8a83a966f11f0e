"""What people do today: Flask around the torch module, in eager mode, with the same tokenizer.

`python -m tests.perf.packaging.flask_server FILE.py:NAME TRAINED PORT [--tuned]`: TRAINED is the folder that the
sample's train.py wrote. POST /classify {"text": ...} answers {"label": ..., "score": ...}.

Tuned: torch takes one thread for a request, and one request at a time. By default it takes all cores for each of as
many as there are, which then wait for each other, and for Python's lock after every operation.
"""

# mypy: allow-subclassing-any
import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from flask import Flask, jsonify, request
from tokenizers import Tokenizer
from werkzeug.serving import WSGIRequestHandler, make_server

from conch.packaging.source.torch_module import load_module


class Handler(WSGIRequestHandler):
    """Keeps connections, as every server that people put in front of Flask does, and writes no line per request."""

    protocol_version = "HTTP/1.1"
    # It writes headers and body one after the other, and would wait for the client's acknowledgement between them.
    disable_nagle_algorithm = True

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Costs as much as a small model."""


def application(reference: str, trained: Path, *, turns: AbstractContextManager[Any]) -> Any:
    """The Flask application; torch runs within `turns`."""
    module = load_module(reference, trained / "weights.safetensors")
    tokenizer = Tokenizer.from_file(str(trained / "tokenizer.json"))
    labels = (trained / "labels.txt").read_text().split()
    app = Flask("classifier")

    def classify() -> Any:
        encoded = tokenizer.encode(request.get_json()["text"])
        with turns, torch.inference_mode():
            logits = module(torch.tensor([encoded.ids]), torch.tensor([encoded.attention_mask]))["logits"]
            score, number = logits.softmax(dim=-1)[0].max(dim=-1)
        return jsonify(label=labels[int(number)], score=float(score))

    app.add_url_rule("/classify", view_func=classify, methods=["POST"])
    return app


def main() -> None:
    """Serve until it is ended."""
    reference, trained, port, *options = sys.argv[1:]
    tuned = options == ["--tuned"]
    if tuned:
        torch.set_num_threads(1)
    app = application(reference, Path(trained), turns=threading.Lock() if tuned else nullcontext())
    make_server("127.0.0.1", int(port), app, threaded=True, request_handler=Handler).serve_forever()


if __name__ == "__main__":
    main()
