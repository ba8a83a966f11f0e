"""From a folder or file to the `source:` that names it in its store."""

from pathlib import Path

import yaml

from conch.api.model import ModelSource
from conch.api.source import BucketSource, ClaimSource, HttpSource, HuggingFaceSource
from conch.store.push import claim
from conch.store.push.settings import PushSettings
from conch.store.push.tree import read_tree


def push(path: Path, source: ModelSource, settings: PushSettings) -> ModelSource:
    """Upload what is at `path` to where `source` says; returns the source to fetch it from. Raises StoreError.

    The stores' clients are imported when they are needed: together they are slow to import.
    """
    place = source.place
    if isinstance(place, ClaimSource):
        # Before every byte of a large model is read for its digest.
        claim.check(settings)
    tree = read_tree(path, settings.meter)
    match place:
        case BucketSource():
            from conch.store.push import buckets

            buckets.push(place, tree, settings)
            pushed = {"uri": source.uri, "digest": tree.digest}
        case HttpSource():
            from conch.store.push import https

            pushed = {"uri": https.push(place, tree, settings), "digest": tree.digest}
        case HuggingFaceSource():
            from conch.store.push import hugging_face

            commit, digest = hugging_face.push(place, tree, settings)
            pushed = {"uri": f"{source.uri.partition('@')[0].rstrip('/')}@{commit}", "digest": digest}
        case ClaimSource():
            claim.push(place, tree, settings)
            pushed = {"uri": source.uri, "digest": tree.digest}
        case _:
            from conch.store.push import oci

            pushed = {"uri": f"{source.uri}@{oci.push(place, tree, settings)}", "digest": tree.digest}
    return source.model_copy(update=pushed)


def yaml_of(source: ModelSource) -> str:
    """What to paste below `spec.model`."""
    fields = source.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    # Without a width a long URI would be broken over two lines, which is correct YAML and still confuses people.
    return yaml.safe_dump({"source": fields}, sort_keys=False, width=10_000, allow_unicode=True)
