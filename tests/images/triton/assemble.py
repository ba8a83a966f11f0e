"""Assemble the stand-in for NVIDIA's Triton image from Python wheels: `python assemble.py [DEST]`.

The image (Dockerfile beside this file) and the contract tests (Triton as a plain process) use the same tree, so what
the tests show holds in the cluster. NVIDIA's image is 10 GB and on a registry that not every machine reaches; the
server itself (24.10, core 2.51) is also inside the wheel `nvidia-pytriton`, with the Python backend only. The
`onnxruntime` backend is therefore our own Python-based one (backend_onnxruntime.py).

The tree:
    bin/tritonserver                        the server
    lib/                                    its libraries (bin's RPATH finds them here)
    backends/python/                        Python backend, its stub, and the packages models may import
    backends/onnxruntime/model.py           our backend

Needs libpython of the running Python's version as a shared library (Debian: libpython3.11).
"""

import argparse
import ctypes.util
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SERVER_REQUIREMENTS = HERE / "requirements-tritonserver.txt"
BACKEND_REQUIREMENTS = HERE / "requirements-onnxruntime.txt"
BACKEND = HERE / "backend_onnxruntime.py"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def cache_folder() -> Path:
    """Where built things live between runs, outside the checkout."""
    named = os.environ.get("CONCH_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "conch"


def cached_server() -> Path:
    """The assembled tree of this checkout's inputs: made at the first call (some ten seconds), then reused."""
    inputs = hashlib.sha256(PYTHON.encode())
    for path in (SERVER_REQUIREMENTS, BACKEND_REQUIREMENTS, BACKEND, Path(__file__)):
        inputs.update(path.read_bytes())
    destination = cache_folder() / "triton" / inputs.hexdigest()[:16]
    if not destination.exists():
        assemble(destination)
    return destination


def assemble(destination: Path) -> None:
    """Make the tree at `destination`, which must not exist; whole or not at all."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="triton-", dir=destination.parent) as temporary:
        wheel, tree = Path(temporary, "wheel"), Path(temporary, "tree")
        _install(SERVER_REQUIREMENTS, wheel, "--no-deps")
        shutil.move(wheel / "pytriton" / "tritonserver", tree)
        shutil.move(wheel / "nvidia_pytriton.libs", tree / "lib")
        stubs = tree / "python_backend_stubs"
        python_backend = tree / "backends" / "python"
        shutil.move(stubs / PYTHON / "triton_python_backend_stub", python_backend)
        shutil.rmtree(stubs)
        for library in (tree / "lib").glob("libpython3-*"):
            library.unlink()  # 32 MB that only the stub of Python 3.13 wants
        for program in (tree / "bin" / "tritonserver", python_backend / "triton_python_backend_stub"):
            program.chmod(0o755)
        # The stub has the Python backend's folder on its sys.path whatever the model; PYTHONPATH does not reach it.
        _install(BACKEND_REQUIREMENTS, python_backend, "--no-deps")
        (tree / "backends" / "onnxruntime").mkdir()
        shutil.copy(BACKEND, tree / "backends" / "onnxruntime" / "model.py")
        tree.chmod(0o755)
        try:
            tree.rename(destination)
        except OSError:
            if not destination.exists():  # else: another process was faster, with the same content
                raise


def environment(tree: Path) -> dict[str, str]:
    """The process environment that runs `tree`'s server on this machine."""
    libraries = [str(tree / "lib")]
    extra = {}
    if ctypes.util.find_library(f"python{PYTHON}") is None:
        folder = sysconfig.get_config_var("LIBDIR")
        if not Path(folder, f"libpython{PYTHON}.so.1.0").exists():
            raise SystemExit(
                f"Triton's Python backend needs libpython{PYTHON}.so.1.0; apt-get install libpython{PYTHON}"
            )
        libraries.append(folder)
        extra["PYTHONHOME"] = sys.base_prefix
    path = f"{tree / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {"PATH": path, "LD_LIBRARY_PATH": os.pathsep.join(libraries), "PYTHONDONTWRITEBYTECODE": "1", **extra}


def server_arguments(tree: Path) -> tuple[str, ...]:
    """Where this tree keeps what NVIDIA's image has below /opt/tritonserver; needed only when it is elsewhere."""
    return (f"--backend-directory={tree / 'backends'}",)


def _install(requirements: Path, target: Path, *options: str) -> None:
    """Install pinned wheels into a folder with whatever index this machine is set up for."""
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        "--no-warn-script-location",
    ]
    have_pip = subprocess.run([*pip[:3], "--version"], capture_output=True, check=False).returncode == 0
    command = pip if have_pip else ["uv", "pip", "install", "--quiet", "--python", sys.executable]
    wheels_only = ["--only-binary", ":all:", "--require-hashes", "--upgrade"]
    subprocess.run([*command, *wheels_only, *options, "--target", target, "-r", requirements], check=True)


def main() -> None:
    """Command line: assemble into DEST, or into the cache and print where."""
    parser = argparse.ArgumentParser(description="Assemble the local stand-in of the Triton image.")
    parser.add_argument("destination", nargs="?", type=Path, help="default: the cache folder ($CONCH_CACHE)")
    destination = parser.parse_args().destination
    if destination is None:
        print(cached_server())
    else:
        assemble(destination.absolute())


if __name__ == "__main__":
    main()
