"""Images: built with buildah from Dockerfiles, kept in the cache as archives, imported into every node's containerd."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cluster import base_image, cache, machine
from tests.cluster.constants import BASE_IMAGE, CHECKOUT_STATE, NODES, PRODUCT_IMAGE, REPOSITORY, RUN, TRITON_IMAGE
from tests.cluster.errors import ClusterError
from tests.cluster.progress import step

_IGNORED = frozenset({"__pycache__", ".git", ".venv", ".cluster", ".mypy_cache", ".ruff_cache", ".pytest_cache"})
_PIP_VARIABLES = ("PIP_CERT", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_TRUSTED_HOST")
_KEPT_ARCHIVES = 3
_KEPT_LAYERS = 60
_HOST_PATHS = ("/etc/ssl/certs", "/usr/local/share/ca-certificates", "/etc/pip.conf")

PROJECT_IMAGES: Mapping[str, tuple[Path, Path]] = {
    PRODUCT_IMAGE: (REPOSITORY / "operator" / "Dockerfile", REPOSITORY),
    TRITON_IMAGE: (
        REPOSITORY / "tests" / "images" / "triton" / "Dockerfile",
        REPOSITORY / "tests" / "images" / "triton",
    ),
    "localhost/envoy:dev": (
        REPOSITORY / "tests" / "images" / "envoy" / "Dockerfile",
        REPOSITORY / "tests" / "images" / "envoy",
    ),
}
"""Image name -> (Dockerfile, context)."""


def build_project_images() -> dict[str, Path]:
    """Builds the images whose Dockerfiles are there; returns name -> archive."""
    return {
        name: build_image(name, dockerfile, context)
        for name, (dockerfile, context) in PROJECT_IMAGES.items()
        if dockerfile.exists()
    }


def build_image(
    name: str, dockerfile: Path, context: Path, *, base: str = BASE_IMAGE, build_args: Mapping[str, str] | None = None
) -> Path:
    """Builds `dockerfile` with `--build-arg BASE=<base>` and returns a docker-archive of it in the cache.

    The same Dockerfile, copied files, base and arguments give the cached archive again, in well under a second.
    """
    arguments = dict(build_args or {})
    recipe = dockerfile.read_text()
    base_archive = base_image.archive() if base == BASE_IMAGE else None
    key = cache.digest(
        name,
        recipe,
        base_archive.name if base_archive else base,
        repr(sorted(arguments.items())),
        *_content(context, _sources(recipe)),
    )
    archive = cache.root() / "images" / f"{_file_name(name)}-{key}.tar"
    if archive.exists():
        return archive
    with cache.locked(cache.root() / "images" / ".lock", what="builds images"):
        if archive.exists():
            return archive
        archive.parent.mkdir(parents=True, exist_ok=True)
        if base_archive is not None:
            base_image.ensure_in_storage(base_archive)
        with step(f"building image {name}", expected_seconds=30):
            ignored = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
            ignoring = [f"--ignorefile={ignored}"] if ignored.exists() else []
            command = [
                *_bud(),
                *ignoring,
                *_build_arguments({"BASE": base, **arguments}),
                "-t",
                name,
                "-f",
                str(dockerfile),
            ]
            _run([*command, str(context)], what=f"Building image {name}")
            with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
                output = Path(scratch) / "image.tar"
                _run([*base_image.buildah("push"), name, f"docker-archive:{output}:{name}"], what=f"Saving {name}")
                output.replace(archive)
        _forget_old(name)
    return archive


def _archives(name: str) -> list[Path]:
    """Every archive of an image in the cache, the oldest first."""
    pattern = f"{_file_name(name)}-{'[0-9a-f]' * 16}.tar"
    return sorted((cache.root() / "images").glob(pattern), key=lambda path: path.stat().st_mtime)


def _file_name(name: str) -> str:
    return name.replace("/", "-").replace(":", "-")


def _forget_old(name: str) -> None:
    """Each edit of the product makes an archive of half a gigabyte: without this a day of work fills the disk."""
    for path in _archives(name)[:-_KEPT_ARCHIVES]:
        path.unlink()
    listed = _run([*base_image.buildah("images"), "--all", "--quiet"], what="Listing buildah's images")
    if len(listed.split()) > _KEPT_LAYERS:
        _run([*base_image.buildah("rmi"), "--prune"], what="Deleting buildah's unused layers")


def save(name: str) -> Path:
    """An archive of an image that buildah or `build_image` made before."""
    if archives := _archives(name):
        return archives[-1]
    raise ClusterError(
        f"No archive of image {name} is in the cache.", todo="Give it with --tar, or run `build-images`."
    )


def load(name: str, archive: Path) -> None:
    """Imports an archive into the containerd of every node, at the same time, and checks that it holds `name`."""
    if not archive.exists():
        raise ClusterError(f"There is no archive {archive}.", todo="Give a docker-archive or OCI archive.")
    if (record := machine.read()) is not None and record.checkout_state != str(CHECKOUT_STATE):
        raise ClusterError(
            f"The machine's cluster belongs to the checkout {Path(record.checkout_state).parent}.",
            todo="Run `python -m tests.cluster up` here: it replaces that cluster.",
        )
    with step(f"loading {name} on {len(NODES)} nodes"), ThreadPoolExecutor() as pool:
        sockets = [RUN / node.name / "containerd.sock" for node in NODES]
        list(pool.map(lambda socket: import_archive(socket, name, archive), sockets))


def import_archive(socket: Path, name: str, archive: Path) -> None:
    """Imports into one containerd; nothing is done when it has this very archive already."""
    ctr = ["ctr", f"--address={socket}", "--namespace=k8s.io"]
    if not socket.exists():
        raise ClusterError(f"No container runtime answers at {socket}.", todo="Run `python -m tests.cluster up`.")
    label = f"conch.local/archive={archive.name}"
    listed = _run([*ctr, "images", "list", f"name=={name}"], what=f"Asking {socket} for its images")
    if label in listed:
        return
    _run([*ctr, "images", "import", str(archive)], what=f"Importing {archive} at {socket}")
    listed = _run([*ctr, "images", "list", "--quiet"], what=f"Asking {socket} for its images")
    if name not in listed.split():
        raise ClusterError(
            f"{archive} was imported, but it holds no image called {name}.",
            todo=f"Tag it {name} before saving it (the names with a registry part are on the nodes: `ctr images ls`).",
        )
    _run([*ctr, "images", "label", name, label], what=f"Marking {name} at {socket}")


def _bud() -> Sequence[str]:
    mounts = [f"--volume={path}:{path}:ro" for path in _HOST_PATHS if Path(path).exists()]
    mounts += [
        f"--volume={path}:{path}:ro"
        for path in os.environ.get("PIP_FIND_LINKS", "").split()
        if path.startswith("/") and Path(path).is_dir()
    ]
    # chroot: the other isolations need a cgroup or a user namespace that not every machine allows.
    options = ["--isolation=chroot", "--network=host", "--format=docker", "--layers", "--pull-never"]
    return [*base_image.buildah("bud"), *options, *mounts]


def _build_arguments(arguments: Mapping[str, str]) -> Iterator[str]:
    for key, value in arguments.items():
        yield f"--build-arg={key}={value}"
    for variable in _PIP_VARIABLES:
        # By name alone: buildah takes the value from the environment, so that no file or process list shows it.
        if os.environ.get(variable):
            yield f"--build-arg={variable}"


def _sources(recipe: str) -> list[str]:
    """The paths of the context that a Dockerfile copies, not those from other stages.

    >>> _sources("FROM x\\nCOPY a.txt b /opt/\\nCOPY --from=build /x /y\\nADD --chown=1:1 c .")
    ['a.txt', 'b', 'c']
    """
    found = []
    for line in recipe.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True) if line.lstrip()[:4].upper() in ("COPY", "ADD ") else []
        if not words or any(word.startswith("--from") for word in words):
            continue
        found += [word for word in words[1:-1] if not word.startswith("--")]
    return found


def _content(context: Path, sources: Iterable[str]) -> Iterator[str | bytes]:
    """Names, modes and bytes of everything that is copied, in a fixed order."""
    for source in sources:
        for top in sorted(context.glob(source.strip("/"))) if source.strip("/.") else [context]:
            for path in [top] if top.is_file() else sorted(top.rglob("*")):
                if path.is_file() and not _IGNORED.intersection(path.parts):
                    yield f"{path.relative_to(context)} {path.stat().st_mode & 0o111}"
                    yield path.read_bytes()


def _run(command: Sequence[str], *, what: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        last = "\n  ".join((result.stdout + result.stderr).strip().splitlines()[-25:])
        raise ClusterError(f"{what} failed:\n  {last}", todo="Read the output above.")
    return result.stdout
