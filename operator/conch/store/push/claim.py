"""Files on a PersistentVolumeClaim, written through a pod that mounts it for as long as this takes.

By kubectl, so that whatever its user has set up (contexts, login plugins, proxies) works here as well.
"""

import json
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import IO, Any, Final, NoReturn, cast

from conch.api.reasons import Reason
from conch.api.source import ClaimSource
from conch.store.errors import StoreError
from conch.store.push.pack import write_tar
from conch.store.push.settings import PushSettings
from conch.store.push.tree import Tree

START_SECONDS: Final = 300
DEADLINE_SECONDS: Final = 86_400
"""After this the pod ends by itself, should this process have been killed."""
POLL_SECONDS: Final = 1.0
_MOUNT: Final = "/claim"
_HOPELESS: Final = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError")
_SAID_MOST: Final = 600

_MOVE: Final = """
set -eu
fresh=$1 target=$2 old=$3 overwrite=$4
mkdir -p "$(dirname "$target")"
if [ -e "$target" ] || [ -L "$target" ]; then
  [ "$overwrite" = yes ] || { echo "there is something already" >&2; exit 1; }
  mv -T "$target" "$old"
fi
mv -T "$fresh" "$target"
"""
"""Renames: who reads the claim finds the old tree or the new one, never a part."""


def check(settings: PushSettings) -> None:
    """Refuse what cannot work. Raises StoreError."""
    if not settings.image:
        raise _error(
            settings,
            Reason.INVALID_SPEC,
            "a claim is written by a pod that needs the image of Conch; name it with --image (as in the chart's "
            "image.repository and image.tag) or CONCH_IMAGE",
        )


def push(source: ClaimSource, tree: Tree, settings: PushSettings) -> None:
    """Put the tree at the claim's path. Raises StoreError; the pod and what was half written are removed always."""
    name = f"conch-push-{secrets.token_hex(4)}"
    with _ended_by_sigterm(), _pod(name, source, settings) as pod:
        pod.wait_until_running()
        target = f"{_MOUNT}/{source.path}"
        # On the claim itself, where a rename is at once; with a name that no path of a source is likely to have.
        work = f"{_MOUNT}/.{name}"
        if not settings.overwrite:
            pod.run("sh", "-c", '[ ! -e "$1" ] || { echo "there is something already" >&2; exit 1; }', "sh", target)
        try:
            pod.run("mkdir", "-p", f"{work}/tree")
            with settings.meter.step(f"uploading {tree} to {settings.shown}", tree.bytes) as step:
                command = pod.command("tar", "-x", "--no-same-owner", "-C", f"{work}/tree", "-f", "-", stdin=True)
                with _feeding(command, settings) as stream:
                    write_tar(tree, stream, step)
            arrived = pod.run("conch", "digest", f"{work}/tree").strip()
            if arrived != tree.digest:
                raise _error(
                    settings,
                    Reason.DIGEST_MISMATCH,
                    f"what arrived has the digest {arrived} instead of {tree.digest}; nothing was changed, push again",
                )
            fresh = f"{work}/tree/{tree.files[0].path}" if tree.is_at(source.path) else f"{work}/tree"
            overwrite = "yes" if settings.overwrite else "no"
            pod.run("sh", "-c", _MOVE, "sh", fresh, target, f"{work}/old", overwrite)
        finally:
            pod.run("rm", "-rf", work, check=False)


class _Pod:
    def __init__(self, name: str, settings: PushSettings) -> None:
        self.name = name
        self._settings = settings

    def command(self, *arguments: str, stdin: bool = False) -> list[str]:
        """kubectl's arguments for running something in the pod."""
        return _kubectl(self._settings, "exec", *(["-i"] if stdin else []), self.name, "--", *arguments)

    def run(self, *arguments: str, check: bool = True) -> str:
        """Run a command in the pod; returns what it prints. Raises StoreError with what it says."""
        return _run(self.command(*arguments), self._settings, check=check)

    def wait_until_running(self) -> None:
        """Raises StoreError with the cluster's words when it does not come up."""
        began, said = time.monotonic(), ""
        while True:
            status = json.loads(_run(_kubectl(self._settings, "get", "pod", self.name, "-o", "json"), self._settings))
            running, words, hopeless = _state(status.get("status", {}))
            if running:
                return
            if hopeless or time.monotonic() - began > START_SECONDS:
                raise _error(
                    self._settings,
                    Reason.SOURCE_UNREACHABLE,
                    f"the pod that should write to the claim does not start: {words or 'no reason is known'}; check "
                    "the claim, --image and the namespace's quota",
                )
            if words and words != said:
                self._settings.meter.say(f"waiting for the pod {self.name}: {words}")
                said = words
            time.sleep(POLL_SECONDS)


@contextmanager
def _pod(name: str, source: ClaimSource, settings: PushSettings) -> Iterator[_Pod]:
    try:
        _run(_kubectl(settings, "create", "-f", "-"), settings, stdin=json.dumps(_manifest(name, source, settings)))
        yield _Pod(name, settings)
    finally:
        delete = ("delete", "pod", name, "--ignore-not-found", "--now", "--wait=false")
        try:
            _run(_kubectl(settings, *delete), settings)
        except StoreError as error:
            # Not raised: it would hide why the push failed.
            settings.meter.say(f"the pod {name} could not be deleted ({error}); delete it yourself")


def _manifest(name: str, source: ClaimSource, settings: PushSettings) -> dict[str, Any]:
    """A pod that every namespace admits, also one that enforces the restricted Pod Security Standard."""
    container = {
        "name": "push",
        "image": settings.image,
        "command": ["sleep", str(DEADLINE_SECONDS)],
        "volumeMounts": [{"name": "claim", "mountPath": _MOUNT}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "conch-push"}},
        "spec": {
            "containers": [container],
            "volumes": [{"name": "claim", "persistentVolumeClaim": {"claimName": source.claim}}],
            "restartPolicy": "Never",
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            # The user and group that the agent reads with.
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "runAsGroup": 1000,
                "fsGroup": 1000,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        },
    }


def _state(status: dict[str, Any]) -> tuple[bool, str, bool]:
    """Whether the pod runs, or else why not, and whether waiting is in vain."""
    for container in status.get("containerStatuses", ()):
        state = container.get("state", {})
        if "running" in state:
            return True, "", False
        for kind in ("waiting", "terminated"):
            if kind in state:
                reason = state[kind].get("reason", "")
                words = ": ".join(filter(None, (reason, state[kind].get("message", ""))))
                return False, words[:_SAID_MOST], kind == "terminated" or reason in _HOPELESS
    for condition in status.get("conditions", ()):
        if condition.get("status") == "False" and condition.get("message"):
            return False, str(condition["message"])[:_SAID_MOST], status.get("phase") == "Failed"
    return False, str(status.get("message", ""))[:_SAID_MOST], status.get("phase") in ("Failed", "Succeeded")


def _kubectl(settings: PushSettings, *arguments: str) -> list[str]:
    namespace = [f"--namespace={settings.namespace}"] if settings.namespace else []
    return ["kubectl", *namespace, *arguments]


def _run(command: Sequence[str], settings: PushSettings, *, stdin: str | None = None, check: bool = True) -> str:
    try:
        ran = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    except OSError as error:
        raise _no_kubectl(settings, error) from error
    if ran.returncode and check:
        _failed(settings, ran.stderr)
    return ran.stdout


@contextmanager
def _feeding(command: Sequence[str], settings: PushSettings) -> Iterator[IO[bytes]]:
    """The command's input; at the end, waits until it has taken all of it. Raises StoreError if it fails."""
    # A file: nobody reads a pipe while its process is being fed.
    with tempfile.TemporaryFile("w+") as errors:
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=errors, stderr=errors)
        except OSError as error:
            raise _no_kubectl(settings, error) from error
        stream = cast(IO[bytes], process.stdin)
        try:
            # Broken when the command has ended: it says why.
            with suppress(BrokenPipeError):
                yield stream
            with suppress(BrokenPipeError):
                stream.close()
            code = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        if code:
            errors.seek(0)
            _failed(settings, errors.read())


def _failed(settings: PushSettings, said: str) -> NoReturn:
    words = " ".join(said.replace("command terminated with exit code 1", "").split())[-_SAID_MOST:]
    if "there is something already" in words:
        raise _error(
            settings,
            Reason.SOURCE_NOT_ALLOWED,
            "there is something already; push to a path of its own, such as one with a version in it, or replace it "
            "with --overwrite",
        )
    raise _error(
        settings,
        Reason.SOURCE_UNREACHABLE,
        f"kubectl failed: {words or 'without a reason'}; check the context, your rights (create, get and delete pods, "
        "create pods/exec) and the claim",
    )


def _no_kubectl(settings: PushSettings, error: OSError) -> StoreError:
    return _error(
        settings,
        Reason.SOURCE_UNREACHABLE,
        f"kubectl cannot be run ({error.strerror}); a claim is written through it, so install it",
    )


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does: by an exception, so that the pod is deleted."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _error(settings: PushSettings, reason: Reason, message: str) -> StoreError:
    return StoreError(reason, f"{settings.shown}: {message}")
