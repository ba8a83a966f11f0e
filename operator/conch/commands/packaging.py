"""The command line of `conch package`; what it needs is imported when it runs, for every command starts with this."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

_MAKE: Final = "model"
"""The default's name, which nobody has to write."""


class DefaultsToPackaging(TyperGroup):
    """`conch package SOURCE` packages; its other commands have a name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """With the default's name in front, unless there is a command's."""
        return super().parse_args(ctx, args if args and args[0] in self.commands else [_MAKE, *args])


class Packaging(TyperCommand):
    """The default: in its help and its errors it is the group itself."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """As if it stood where its group stands."""
        if parent is not None:
            info_name, parent = parent.info_name, parent.parent
        return super().make_context(info_name, args, parent=parent, **extra)


class Heads(StrEnum):
    """conch.packaging.request.Head, which is not imported here: it takes numpy along."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    NONE = "none"


app = typer.Typer(cls=DefaultsToPackaging, rich_markup_mode=None)

_file: Final[dict[str, Any]] = {"metavar": "FILE", "dir_okay": False, "exists": True}
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")]


@app.command(_MAKE, cls=Packaging, hidden=True, no_args_is_help=True)
def make(
    source: Annotated[
        str,
        typer.Argument(
            help="A torch module of a Python file (also its class, or a function without arguments that makes it), an "
            "ONNX file, or the YAML file of a pipeline.",
            metavar="FILE.py:NAME|FILE.onnx|FILE.yaml",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The repository to write to: OUTPUT/NAME is made.", metavar="FOLDER")
    ],
    name: Annotated[str | None, typer.Option(help="The model's name, as clients call it; taken from SOURCE.")] = None,
    version: Annotated[int, typer.Option(help="Its version; one that is there is never overwritten.", min=1)] = 1,
    weights: Annotated[
        Path | None, typer.Option(help="The module's weights: .safetensors, or .pth with nothing but weights.", **_file)
    ] = None,
    example_input: Annotated[
        str | None,
        typer.Option(
            help="A batch of inputs: x.npz with an array for each input, or 'x=float32[2,10];ids=int64[2,16]<30000' "
            "drawn at random.",
            metavar="FILE.npz|TEXT",
        ),
    ] = None,
    dynamic: Annotated[
        list[str] | None,
        typer.Option(
            help="An axis whose length differs, besides the batch: input_ids:1=seq:2..128. May be given again.",
            metavar="INPUT:AXIS=NAME:LEAST..MOST",
        ),
    ] = None,
    max_batch: Annotated[
        int, typer.Option(help="Most samples that the server executes together; 0: no batches.", min=0, max=65536)
    ] = 32,
    labels: Annotated[
        Path | None, typer.Option(help="Names of a classifier's classes, one a line, in their order.", **_file)
    ] = None,
    head: Annotated[
        Heads | None,
        typer.Option(
            help="Answer LABEL and SCORE in place of scores per class: softmax for one class of several, sigmoid for "
            "yes or no per class, none to leave the outputs. Default: softmax with --labels, else none.",
        ),
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="tokenizer.json: clients then send texts (TEXT), and a step before the model tokenises them.",
            metavar="FILE",
            exists=True,
        ),
    ] = None,
    max_length: Annotated[int, typer.Option(help="Tokens that a text is cut to.", min=1)] = 128,
    optimise: Annotated[
        str | None,
        typer.Option(
            help="int8, fp16 (for GPUs), prune=SHARE (torch modules), or several with commas: measured on --data, and "
            "kept only where it gains.",
            metavar="WHAT[,WHAT]",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Held-out data: npz with the inputs by name and `target`, class numbers or values.", **_file),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Inputs to take int8 ranges from; default: those of --data.", **_file)
    ] = None,
    finetune: Annotated[
        str | None,
        typer.Option(help="Function that trains the pruned module again, called with it.", metavar="FILE.py:NAME"),
    ] = None,
    max_drop: Annotated[
        float, typer.Option(help="What an optimisation may cost of the score, absolute.", min=0, max=1)
    ] = 0.01,
    golden: Annotated[
        Path | None,
        typer.Option(help="Inputs of the golden set: npz; default: those of --data, else the example.", **_file),
    ] = None,
    golden_count: Annotated[int, typer.Option(help="Most samples in the golden set.", min=1, max=256)] = 32,
    target_image: Annotated[
        str | None,
        typer.Option(
            help="Refuse what NVIDIA's image of this release is too old for, such as 25.06.", metavar="RELEASE"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Package a trained model: into a folder that Triton serves as it is, with its own proof.

    The model is exported to ONNX, held against the original at several batch sizes, optimised if asked to, and written
    as OUTPUT/NAME with its config.pbtxt, a golden set that servers replay before they get traffic, and a record of how
    it was made. An ONNX file needs 'conch[package]', a torch module 'conch[torch]'. SOURCE's Python code is run, as
    python FILE.py would run it.

    Either everything is written or nothing. The digest, which the same inputs give again, is the last line. Exits with
    0, and with 1 when the model cannot be packaged.

    conch package check REPOSITORY checks what was packaged, without a server.

    \b
    Examples:
      conch package train.py:net --weights net.safetensors --example-input 'input=float32[2,10]' -o models
      conch package mlp.onnx --data test.npz --labels labels.txt --optimise int8 --max-drop 0.005 -o models
      conch package cnn.py:Net --weights cnn.pth --data test.npz --optimise prune=0.5,int8 --finetune cnn.py:fit \\
        --version 2 -o models
      conch package bert.py:net --tokenizer tokenizer.json --max-length 128 --labels labels.txt --data texts.npz -o text
      conch package pipeline.yaml -o inspection
      conch package check models
    """
    from conch.packaging.options import Options
    from conch.packaging.run import run_package

    options = Options(
        source=source,
        output=output,
        weights=weights,
        example_input=example_input,
        name=name,
        version=version,
        max_batch=max_batch,
        dynamic=_given(dynamic),
        labels=labels,
        head=None if head is None else head.value,
        tokenizer=tokenizer,
        max_length=max_length,
        optimise=optimise,
        data=data,
        calibration=calibration,
        finetune=finetune,
        max_drop=max_drop,
        golden=golden,
        golden_count=golden_count,
        target_image=target_image,
    )
    raise typer.Exit(run_package(options, as_json=as_json))


@app.command()
def check(
    repository: Annotated[
        Path,
        typer.Argument(help="A repository, or the folder of one of its models.", metavar="REPOSITORY", exists=True),
    ],
    as_json: AsJson = False,
) -> None:
    """Check a repository without a server: what Triton or Conch would stumble over, and whether it answers as recorded.

    Looks at names, version folders, each configuration against its graph, labels and checksums, and replays the golden
    sets in onnxruntime within their tolerances. Prints each thing that is wrong with what to do, and the digest.

    Exits with 0, with 1 when something is wrong, and with 2 when that cannot be told.

    \b
    Examples:
      conch package check models
      conch package check models/mlp --json
    """
    from conch.packaging.run import run_check

    raise typer.Exit(run_check(repository, as_json=as_json))


def _given(several: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(several or ())
