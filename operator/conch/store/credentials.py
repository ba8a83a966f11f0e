"""The entries of the Secret that `model.source.credentialsSecretRef` names, as the kubelet mounts them."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from conch.api.reasons import Reason
from conch.store.errors import StoreError

ENTRY_BYTES_MOST: Final = 1 << 20
CA_CERTIFICATE: Final = "ca.crt"


class Credentials(Mapping[str, str]):
    """Read-only entries by name; never shows a value in its text form."""

    def __init__(self, entries: Mapping[str, str] | None = None) -> None:
        self._entries = dict(entries or {})

    def __getitem__(self, name: str) -> str:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Credentials({', '.join(sorted(self._entries))})"

    @classmethod
    def read(cls, folder: Path, secret: str) -> "Credentials":
        """The Secret's entries, read anew at every fetch: the kubelet brings changes. Raises StoreError."""
        entries = {}
        try:
            # Where there is no Secret, there may be no folder either.
            for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
                # Names that start with two dots are the kubelet's own, for swapping all entries at once.
                if entry.name.startswith("..") or not entry.is_file():
                    continue
                with entry.open("rb") as stream:
                    content = stream.read(ENTRY_BYTES_MOST)
                with suppress(UnicodeDecodeError):  # somebody else's entry: all of ours are text
                    entries[entry.name] = content.decode().strip()
        except OSError as error:
            raise StoreError(
                Reason.SOURCE_ACCESS_DENIED,
                f"the Secret {secret} (model.source.credentialsSecretRef) cannot be read: {error.strerror}",
            ) from error
        if not entries:
            raise StoreError(
                Reason.SOURCE_ACCESS_DENIED,
                f"the Secret {secret} (model.source.credentialsSecretRef) is not there or has no text in it; create it "
                "in the ModelDeployment's namespace, its pods see it within two minutes",
            )
        return cls(entries)

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> "Credentials":
        """What a cloud's webhook put into the pod's environment (workload identity), or a person's shell holds."""
        names = ("AWS_", "AZURE_", "GOOGLE_", "HF_TOKEN")
        return cls({name: value for name, value in environment.items() if name.startswith(names) and value})
