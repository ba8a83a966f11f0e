"""What has come of packaging and checking, for people and for programs."""

import json
from typing import Any, Final

import yaml
from rich.console import Group, RenderableType
from rich.text import Text

from conch.api import names
from conch.packaging.checking.check import Checked
from conch.packaging.optimise.variants import Variant
from conch.packaging.output.record import finite
from conch.packaging.packaging import Package
from conch.rollouts.printing import one_line, plain, table

_WHERE: Final = "s3://BUCKET"
_ABSENT: Final = "-"
_OBJECT_NAME_MOST: Final = 40


def package_text(package: Package) -> RenderableType:
    """A table of the variants, what to know, what to do next; the digest is the last line."""
    parts: list[RenderableType] = [Text(_head(package), style="bold")]
    if package.choice is not None:
        parts += [Text(""), _variants(package)]
    if package.notes:
        parts += [Text(""), *(plain(f"note: {note}", "yellow") for note in package.notes)]
    parts += [
        Text(""),
        Text("Next:", style="dim"),
        Text(push_command(package)),
        Text("kubectl apply -f - <<'EOF'"),
        Text(manifest(package).rstrip()),
        Text("EOF"),
        Text(""),
        Text(package.digest),
    ]
    return Group(*parts)


def push_command(package: Package) -> str:
    """To a place that its user knows."""
    return f"conch push {package.path} {_uri(package)}"


def manifest(package: Package) -> str:
    """A ModelDeployment of it, as YAML."""
    name = object_name(package.name)
    model: dict[str, Any] = {} if name == package.name else {"name": package.name}
    model |= {"version": package.version, "source": {"uri": _uri(package), "digest": package.digest}}
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": name},
        "spec": {"model": model},
    }
    return yaml.safe_dump(body, sort_keys=False, width=10_000, allow_unicode=True)


def object_name(model: str) -> str:
    """A name that a ModelDeployment may have (it is also its Service's), as near to the model's as can be.

    >>> object_name("my_net"), object_name("2nd-net_")
    ('my-net', 'model-2nd-net')
    """
    name = model.replace("_", "-")
    return (name if name[0].isalpha() else f"model-{name}")[:_OBJECT_NAME_MOST].rstrip("-")


def _uri(package: Package) -> str:
    return f"{_WHERE}/{package.name}/{package.version}"


def _head(package: Package) -> str:
    told = [f"{package.name} version {package.version} is in {package.path}"]
    if len(package.models) > 1:
        told.append(f"models {', '.join(package.models)}")
    if package.config.max_batch_size:
        told.append(f"batches of up to {package.config.max_batch_size}")
    if package.parity is not None:
        told.append(f"largest deviation from its source {package.parity.largest:.1e}")
    if package.golden_count:
        told.append(f"golden set of {package.golden_count}")
    return one_line(", ".join(told))


def _variants(package: Package) -> RenderableType:
    choice = package.choice
    assert choice is not None  # noqa: S101 - asked by the caller
    most = package.config.max_batch_size
    made = table("VARIANT", "SIZE", "SCORE", "1 SAMPLE", *([f"BATCH OF {most}"] if most > 1 else []), "KEPT")
    for variant in package.variants:
        kept = variant.name == choice.kept.name
        tried = f"yes: {choice.why}" if choice.reasons else "yes"
        why = tried if kept else f"no: {choice.reasons.get(variant.name, '')}"
        made.add_row(
            variant.name,
            f"{variant.bytes:,}",
            _score(variant),
            _microseconds(variant.latency.one_us),
            *([_microseconds(variant.latency.most_us)] if most > 1 else []),
            plain(why, "green" if kept else ""),
        )
    shown = {variant.name for variant in package.variants}
    for name, reason in choice.reasons.items():
        if name not in shown:
            made.add_row(name, _ABSENT, _ABSENT, _ABSENT, *([_ABSENT] if most > 1 else []), plain(f"no: {reason}"))
    return made


def _score(variant: Variant) -> str:
    return _ABSENT if variant.score is None else f"{variant.score.value:.4f} {variant.score.metric}"


def _microseconds(value: float) -> str:
    return f"{value:,.0f} us" if value < 10_000 else f"{value / 1000:,.1f} ms"


def package_json(package: Package) -> str:
    """One object."""
    choice = package.choice
    body = {
        "name": package.name,
        "version": package.version,
        "path": str(package.path),
        "digest": package.digest,
        "models": list(package.models),
        "maxBatchSize": package.config.max_batch_size,
        "parity": None
        if package.parity is None
        else {
            "largest": package.parity.largest,
            "output": package.parity.output,
            "byBatch": {str(size): value for size, value in package.parity.by_batch.items()},
        },
        "variants": [_variant_json(each) for each in package.variants],
        "kept": None if choice is None else {"name": choice.kept.name, "why": choice.why},
        "notKept": {} if choice is None else dict(choice.reasons),
        "goldenSamples": package.golden_count,
        "notes": list(package.notes),
    }
    return json.dumps(body, indent=2, allow_nan=False)


def _variant_json(variant: Variant) -> dict[str, Any]:
    score = None if variant.score is None else {"metric": variant.score.metric, "value": variant.score.value}
    return {
        "name": variant.name,
        "bytes": variant.bytes,
        "score": score,
        "oneSampleMicroseconds": variant.latency.one_us,
        "fullBatchMicroseconds": variant.latency.most_us,
        "batchDeviation": finite(variant.batch_deviation),
    }


def checked_text(checked: Checked) -> RenderableType:
    """What is wrong, or that nothing is; the digest is the last line where there is one."""
    parts: list[RenderableType] = [plain(str(each), "red") for each in checked.findings]
    for name in checked.models:
        if name in checked.replayed:
            parts.append(plain(f"{name}: {checked.replayed[name]} samples of its golden set replayed"))
        elif name in checked.not_replayed:
            parts.append(plain(f"{name}: not replayed: {checked.not_replayed[name]}", "dim"))
    count = len(checked.findings)
    words = f"{count} {'thing is' if count == 1 else 'things are'} wrong" if count else "nothing is wrong"
    parts.append(Text(words, style="red" if count else "green"))
    if checked.digest is not None:
        parts += [plain(f"digest of {checked.pushed}:", "dim"), Text(checked.digest)]
    return Group(*parts)


def checked_json(checked: Checked) -> str:
    """One object."""
    findings = [
        {"model": each.model, "place": each.place, "problem": each.problem, "remedy": each.remedy}
        for each in checked.findings
    ]
    body = {
        "findings": findings,
        "models": list(checked.models),
        "replayed": checked.replayed,
        "notReplayed": checked.not_replayed,
        "path": str(checked.pushed),
        "digest": checked.digest,
    }
    return json.dumps(body, indent=2)
