"""A commit in a model repository of the Hugging Face Hub, by the Hub's own library."""

import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, errors, set_client_factory
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils.tqdm import disable_progress_bars

from conch.api.reasons import Reason
from conch.api.source import HuggingFaceSource
from conch.store.credentials import CA_CERTIFICATE
from conch.store.digest import file_sha256, listing_digest
from conch.store.errors import StoreError
from conch.store.push.environment import ADVICE
from conch.store.push.settings import PushSettings
from conch.store.push.tree import Tree

_OWN_FILE: Final = ".gitattributes"
"""The Hub makes it at the root of every repository, and its library never deletes it."""
_TIMEOUT: Final = httpx2.Timeout(600, connect=10)


def push(source: HuggingFaceSource, tree: Tree, settings: PushSettings) -> tuple[str, str]:
    """Make the commit; returns its id and the digest of what is fetched from it. Raises StoreError."""
    push = _Push(source, tree, settings)
    with push.explained():
        return push.run()


class _Push:
    def __init__(self, source: HuggingFaceSource, tree: Tree, settings: PushSettings) -> None:
        self._source = source
        self._tree = tree
        self._settings = settings
        self._wanted = tree.at(source.path)
        # Xet has connections of its own, which know nothing of --ca-certificate.
        constants.HF_HUB_DISABLE_XET = True
        trust = ssl.create_default_context()
        with self.explained():
            if authority := settings.credentials.get(CA_CERTIFICATE):
                trust.load_verify_locations(cadata=authority)
        set_client_factory(lambda: httpx2.Client(verify=trust, follow_redirects=True, timeout=_TIMEOUT))
        if not settings.meter.terminal:
            disable_progress_bars()
        # False: no other token than the one that was found, which may be none.
        self._api = HfApi(endpoint=source.endpoint, token=settings.credentials.get("HF_TOKEN") or False)

    def run(self) -> tuple[str, str]:
        before = self._repository()
        stale = [path for path in self._below(before) if path not in self._wanted and path != _OWN_FILE]
        if stale and not self._settings.overwrite:
            more = f" and {len(stale) - 3} more" if len(stale) > 3 else ""
            raise self._error(
                Reason.SOURCE_NOT_ALLOWED,
                f"there are files that are not in what is pushed ({', '.join(stale[:3])}{more}); push to a folder or "
                "branch of its own, or remove them in the new commit with --overwrite",
            )
        self._settings.meter.say(f"uploading {self._tree} to {self._settings.shown}")
        done = self._api.create_commit(
            self._source.repository,
            [
                *(CommitOperationDelete(path) for path in stale),
                *(CommitOperationAdd(key, str(file.local)) for key, file in self._wanted.items()),
            ],
            commit_message=f"conch push: {self._tree.digest}",
            revision=self._source.revision,
            # Not if somebody else has made one since `stale` was found.
            parent_commit=before.sha,
        )
        return done.oid, self._digest(done.oid)

    def _repository(self) -> ModelInfo:
        name, revision = self._source.repository, self._source.revision
        try:
            return self._api.model_info(name, revision=revision, files_metadata=True)
        except errors.RepositoryNotFoundError as error:
            if not self._settings.create:
                raise self._error(
                    Reason.SOURCE_NOT_FOUND,
                    f"there is no such repository, or the token may not see it; make it with --create (private) or on "
                    f"the Hub, or {ADVICE['hf']}",
                ) from error
        self._api.create_repo(name, private=True)
        self._settings.meter.say(f"made the private repository {name}")
        return self._api.model_info(name, revision=revision, files_metadata=True)

    def _below(self, info: ModelInfo) -> Mapping[str, int | None]:
        """Path -> size of what is at the source's path in a commit."""
        path = self._source.path
        inside = f"{path}/" if path else ""
        sizes = {str(each.rfilename): each.size for each in info.siblings or ()}
        return {name: size for name, size in sizes.items() if name == path or name.startswith(inside)}

    def _digest(self, commit: str) -> str:
        """Of the files as the Hub lists them now, which must be those that were pushed."""
        info = self._api.model_info(self._source.repository, revision=commit, files_metadata=True)
        there = self._below(info)
        own = _OWN_FILE in there and _OWN_FILE not in self._wanted
        if {**there, _OWN_FILE: 0} != {**{key: file.size for key, file in self._wanted.items()}, _OWN_FILE: 0}:
            raise self._error(
                Reason.DIGEST_MISMATCH,
                f"the commit {commit} does not have the files that were pushed; look at it on the Hub",
            )
        if not own:
            return self._tree.digest
        with tempfile.TemporaryDirectory(prefix="conch-push-") as folder:
            file = Path(
                self._api.hf_hub_download(self._source.repository, _OWN_FILE, revision=commit, local_dir=folder)
            )
            digest = listing_digest(
                {key: each.sha256 for key, each in self._wanted.items()} | {_OWN_FILE: file_sha256(file)}
            )
        self._settings.meter.say(
            f"the digest is not that of the folder alone: a whole repository also has the Hub's own {_OWN_FILE}; to "
            "have the same digest everywhere push to a folder, as in hf://ORGANISATION/NAME/FOLDER"
        )
        return digest

    @contextmanager
    def explained(self) -> Iterator[None]:
        """The library's errors in our words; its own have whole requests in them."""
        try:
            yield
        except errors.RevisionNotFoundError as error:
            raise self._error(
                Reason.SOURCE_NOT_FOUND,
                f"the repository has no branch {self._source.revision}; make it on the Hub, or push to main",
            ) from error
        except errors.HfHubHTTPError as error:
            status, said = error.response.status_code, error.server_message or ""
            words = "".join(character for character in said if character.isprintable())[:300]
            answered = f"HTTP {status}{f': {words}' if words else ''}"
            if status in (401, 403):
                raise self._error(
                    Reason.SOURCE_ACCESS_DENIED, f"access is denied ({answered}); {ADVICE['hf']}"
                ) from error
            if status == 412:
                raise self._error(
                    Reason.SOURCE_CHANGED, "somebody else has changed the branch meanwhile; push again"
                ) from error
            raise self._error(
                Reason.SOURCE_UNREACHABLE, f"the Hub refuses it ({answered}); check the URI and push again"
            ) from error
        except (errors.HFValidationError, ssl.SSLError) as error:
            what = (
                "the certificate is not in PEM form" if isinstance(error, ssl.SSLError) else "the Hub has no such names"
            )
            raise self._error(Reason.INVALID_SPEC, f"{what}; correct it") from error
        except (httpx2.HTTPError, OSError) as error:
            raise self._error(
                Reason.SOURCE_UNREACHABLE,
                f"no connection to {self._source.host}, or it broke off ({type(error).__name__}); check the network "
                "and, for a private authority, --ca-certificate, then push again",
            ) from error

    def _error(self, reason: Reason, message: str) -> StoreError:
        return StoreError(reason, f"{self._settings.shown}: {message}")
