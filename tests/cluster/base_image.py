"""The image that the others start from: a minimal Debian with Python, made by mmdebstrap, without any registry."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.cluster import cache
from tests.cluster.constants import BASE_IMAGE, BASE_PACKAGES, SUITE
from tests.cluster.errors import ClusterError
from tests.cluster.progress import step

# What would name the machine that built it, its name servers or its package sources, and what only takes room.
_REMOVED = (
    "./etc/resolv.conf",
    "./etc/hostname",
    "./etc/apt/sources.list.d/*",
    "./var/lib/apt/lists/*",
    "./var/cache/*",
    "./var/log/*",
    "./usr/share/doc/*",
)


def archive() -> Path:
    """The root file system as a tar in the cache, made now when it is missing."""
    path = cache.root() / "images" / f"base-{cache.digest(SUITE, *BASE_PACKAGES, *_REMOVED)}.tar"
    if path.exists():
        return path
    with cache.locked(cache.root() / "images" / ".base.lock", what="makes the base image"):
        if path.exists():
            return path
        with (
            tempfile.TemporaryDirectory(dir=path.parent) as scratch,
            step("making the base image (Debian, Python)", expected_seconds=60),
        ):
            output = Path(scratch) / "base.tar"
            command = [
                "mmdebstrap",
                "--variant=minbase",
                f"--include={','.join(BASE_PACKAGES)}",
                *_apt_options(),
                *(f"--customize-hook=rm -rf $1/{pattern[2:]}" for pattern in _REMOVED),
                SUITE,
                str(output),
                *_sources(),
            ]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode != 0:
                last = "\n  ".join(result.stderr.strip().splitlines()[-10:])
                raise ClusterError(
                    f"mmdebstrap could not make the base image:\n  {last}",
                    todo="Check that apt-get update works on this machine, then run again.",
                )
            output.replace(path)
    return path


def ensure_in_storage(path: Path) -> None:
    """Puts the root file system into buildah's storage under `BASE_IMAGE`, unless this very one is there."""
    asked = [*buildah("inspect"), "--type=image", '--format={{index .OCIv1.Config.Labels "conch.archive"}}', BASE_IMAGE]
    present = subprocess.run(asked, capture_output=True, text=True, check=False)
    if present.returncode == 0 and present.stdout.strip() == path.name:
        return
    with tempfile.TemporaryDirectory() as scratch:
        dockerfile = Path(scratch) / "Dockerfile"
        dockerfile.write_text(f'FROM scratch\nADD {path.name} /\nLABEL conch.archive={path.name}\nCMD ["/bin/sh"]\n')
        (Path(scratch) / path.name).hardlink_to(path)
        command = [*buildah("bud"), "--isolation=chroot", "-t", BASE_IMAGE, "-f", str(dockerfile), scratch]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ClusterError(f"buildah could not import the base image: {result.stderr[-800:]}", todo="Is the disk full?")


def buildah(command: str) -> list[str]:
    """buildah with a storage of its own, so that the user's images stay alone and `CONCH_CACHE` holds all of ours."""
    storage = cache.root() / "buildah"
    return ["buildah", f"--root={storage}/root", f"--runroot={storage}/run", "--storage-driver=overlay", command]


def _sources() -> list[str]:
    """The machine's own package sources of this Debian release: they are the ones that can be reached."""
    folder = Path("/etc/apt")
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    return [
        str(path)
        for path in files
        if path.suffix in (".list", ".sources") and path.is_file() and _has_suite(path.read_text())
    ]


def _has_suite(text: str) -> bool:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return any(SUITE in line.split() for line in lines)


def _apt_options() -> Iterator[str]:
    """How the machine reaches its package sources: proxies, certificates, whether lists may be old."""
    dumped = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    wanted = (
        "Acquire::http",
        "Acquire::https",
        "Acquire::Check-Valid-Until",
        "Acquire::Check-Date",
        "Acquire::Retries",
    )
    for line in dumped.splitlines():
        if line.startswith(wanted) and not line.endswith('"";'):
            yield f"--aptopt={line}"
