"""The Hugging Face Hub's routes that its Python library uses for models: listing, download, and upload by LFS.

Large files are redirected to a second port, which stands for the Hub's CDN: another origin, where links are signed and
a request that brings credentials as well is refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from aiohttp import web

from tests.cluster.ports import free_port
from tests.stores.store import Store, counted
from tests.stores.tls import Tls
from tests.stores.web import WebServer, answer

LFS_SUFFIXES = (".onnx", ".bin", ".pt", ".safetensors", ".plan", ".tar.gz")
"""The real Hub decides by the repository's .gitattributes, which names these and more."""
_PAGE_ENTRIES = 1000

Files = Mapping[str, bytes]


@dataclass(slots=True)
class Repository:
    """Commits by id, and the branches that point to them."""

    private: bool
    gated: bool
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Files, branch: str) -> str:
        """A new commit; the branch moves to it."""
        parent = self.branches.get(branch, "")
        tree = "".join(f"{path} {_git_id(content)}\n" for path, content in sorted(files.items()))
        commit = hashlib.sha1(f"{len(self.commits)} {parent}\n{tree}".encode(), usedforsecurity=False).hexdigest()
        self.commits[commit] = dict(files)
        self.branches[branch] = commit
        return commit

    def resolve(self, revision: str) -> str | None:
        """The commit of a branch, or a commit itself."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)


class Refusal(Exception):
    """An answer as the Hub gives it: the library looks at the headers."""

    def __init__(self, status: HTTPStatus, code: str, message: str) -> None:
        super().__init__(message)
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.response = web.json_response({"error": message}, status=status, headers=headers)


class HuggingFace(Store):
    """Paths are `ORGANISATION/NAME` or `ORGANISATION/NAME/PATH`; `put` makes repositories, private if not told else."""

    def __init__(
        self,
        folder: Path,
        *,
        address: str = "127.0.0.1",
        host: str | None = None,
        tls: Tls | None = None,
        private: bool = True,
    ) -> None:
        super().__init__(folder, address=address, host=host, tls=tls)
        self.repositories: dict[str, Repository] = {}
        self.authenticates = private
        self.token = f"hf_{secrets.token_hex(16)}"
        self.cdn_port = free_port(address)
        self._private = private
        self._objects: dict[str, bytes] = {}
        self._signature = secrets.token_hex(16)
        self._requests: Counter[str] = Counter()
        context = tls.server_context() if tls else None
        self._servers = [
            WebServer(handler, address=address, port=port, context=context)
            for handler, port in ((self._hub, self.port), (self._cdn, self.cdn_port))
        ]

    def uri(self, path: str) -> str:
        return f"hf://{path}"

    @property
    def requests(self) -> Counter[str]:
        """Also those to the CDN, whose paths begin with /cdn."""
        return Counter(self._requests)

    def start(self) -> None:
        for server in self._servers:
            server.start()

    def stop(self) -> None:
        for server in self._servers:
            server.stop()

    def create(self, repository: str, *, private: bool = False, gated: bool = False) -> Repository:
        """An empty repository with a first commit."""
        made = self.repositories[repository] = Repository(private=private, gated=gated)
        made.commit({}, "main")
        return made

    def commit(self, repository: str, files: Mapping[str, bytes | None], *, branch: str = "main") -> str:
        """Change these files (None removes one) and return the commit's id; a new branch starts at main."""
        found = self.repositories.get(repository) or self.create(repository, private=self._private)
        before = found.commits[found.branches.get(branch, found.branches["main"])]
        after = {path: content for path, content in {**before, **files}.items() if content is not None}
        for content in after.values():
            self._objects[hashlib.sha256(content).hexdigest()] = content
        return found.commit(after, branch)

    def put(self, path: str, content: bytes) -> None:
        repository, inside = _split(path)
        self.commit(repository, {inside: content})

    def put_tree(self, path: str, files: Mapping[str, bytes]) -> None:
        """One commit on main."""
        repository, inside = _split(path)
        self.commit(repository, {f"{inside}/{name}".lstrip("/"): content for name, content in files.items()})

    def delete(self, path: str) -> None:
        """A whole repository, or with a commit what is below a path in it."""
        repository, inside = _split(path)
        if not inside:
            del self.repositories[repository]
            return
        found = self.repositories[repository]
        below = _below(found.commits[found.branches["main"]], inside)
        self.commit(repository, dict.fromkeys(below))

    def _login(self, *, right: bool) -> dict[str, str]:
        return {"HF_TOKEN": self.token if right else f"hf_{secrets.token_hex(16)}"}

    # The Hub

    async def _hub(self, request: web.Request) -> web.StreamResponse:
        self._requests[counted(request.method, request.path)] += 1
        try:
            known = self._known(request)
            # Branch names may have slashes, which come quoted: parts are split before they are unquoted.
            parts = [unquote(part) for part in request.rel_url.raw_path.strip("/").split("/")]
            match parts:
                case ["api", "repos", "create"] if request.method == "POST" and known:
                    return await self._create(request)
                case ["api", "validate-yaml"] if request.method == "POST":
                    return web.json_response({"warnings": [], "errors": []})
                case ["api", "models", organisation, name]:
                    return self._info(request, f"{organisation}/{name}", "main", known=known)
                case ["api", "models", organisation, name, "revision", revision]:
                    return self._info(request, f"{organisation}/{name}", revision, known=known)
                case ["api", "models", organisation, name, "tree", revision, *path]:
                    return self._tree(request, f"{organisation}/{name}", revision, "/".join(path), known=known)
                case ["api", "models", organisation, name, "preupload", revision] if known:
                    return await self._preupload(request, f"{organisation}/{name}", revision)
                case ["api", "models", organisation, name, "commit", branch] if known:
                    return await self._commit(request, f"{organisation}/{name}", branch)
                case [_, _, "info", "lfs", "objects", "batch"] if known:
                    return await self._batch(request)
                case [organisation, name, "resolve", revision, *path]:
                    return await self._file(request, f"{organisation}/{name}", revision, "/".join(path), known=known)
        except Refusal as refusal:
            return refusal.response
        status = HTTPStatus.NOT_FOUND if known else HTTPStatus.UNAUTHORIZED
        return web.json_response({"error": status.phrase}, status=status)

    def _known(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization")
        if given is not None and given != f"Bearer {self.token}":
            raise Refusal(HTTPStatus.UNAUTHORIZED, "", "Invalid credentials in Authorization header")
        return given is not None

    def _find(self, repository: str, revision: str, *, known: bool) -> tuple[Repository, str]:
        found = self.repositories.get(repository)
        if found is None or (found.private and not known):
            # To who is not logged in, what is not there and what is private look the same.
            status = HTTPStatus.NOT_FOUND if known else HTTPStatus.UNAUTHORIZED
            raise Refusal(status, "RepoNotFound", "Repository not found")
        commit = found.resolve(revision)
        if commit is None:
            raise Refusal(HTTPStatus.NOT_FOUND, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found, commit

    def _info(self, request: web.Request, repository: str, revision: str, *, known: bool) -> web.Response:
        found, commit = self._find(repository, revision, known=known)
        blobs = request.query.get("blobs", "").lower() == "true"
        siblings = [
            {"rfilename": path} | (_blob(path, content, sibling=True) if blobs else {})
            for path, content in sorted(found.commits[commit].items())
        ]
        return web.json_response(
            {
                "_id": hashlib.sha256(repository.encode()).hexdigest()[:24],
                "id": repository,
                "modelId": repository,
                "sha": commit,
                "private": found.private,
                "gated": "manual" if found.gated else False,
                "disabled": False,
                "tags": [],
                "siblings": siblings,
            }
        )

    def _tree(self, request: web.Request, repository: str, revision: str, path: str, *, known: bool) -> web.Response:
        found, commit = self._find(repository, revision, known=known)
        files = found.commits[commit]
        below = f"{path}/" if path else ""
        recursive = request.query.get("recursive", "").lower() == "true"
        folders, entries = set[str](), []
        for name, content in sorted(files.items()):
            if not name.startswith(below):
                continue
            pieces = name.removeprefix(below).split("/")
            folders |= {below + "/".join(pieces[:depth]) for depth in range(1, len(pieces) if recursive else 2)}
            if recursive or len(pieces) == 1:
                folders.discard(name)
                entries.append({"type": "file", "path": name} | _blob(name, content, sibling=False))
        entries += [{"type": "directory", "path": each, "oid": _git_id(each.encode()), "size": 0} for each in folders]
        if path and not entries:
            raise Refusal(HTTPStatus.NOT_FOUND, "EntryNotFound", f"{path} does not exist on {revision}")
        entries.sort(key=lambda entry: str(entry["path"]))
        start = int(request.query.get("cursor", "0"))
        headers = {}
        if start + _PAGE_ENTRIES < len(entries):
            following = request.rel_url.update_query(cursor=str(start + _PAGE_ENTRIES))
            headers["Link"] = f'<{self.endpoint}{following}>; rel="next"'
        return web.json_response(entries[start : start + _PAGE_ENTRIES], headers=headers)

    async def _file(
        self, request: web.Request, repository: str, revision: str, path: str, *, known: bool
    ) -> web.StreamResponse:
        found, commit = self._find(repository, revision, known=known)
        if found.gated:
            status = HTTPStatus.FORBIDDEN if known else HTTPStatus.UNAUTHORIZED
            raise Refusal(status, "GatedRepo", f"Access to model {repository} is restricted.")
        content = found.commits[commit].get(path)
        if content is None:
            raise Refusal(HTTPStatus.NOT_FOUND, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit}
        if not _is_large(path, content):
            return await answer(request, content, f'"{_git_id(content)}"', headers)
        sha256 = hashlib.sha256(content).hexdigest()
        headers |= {
            "X-Linked-Size": str(len(content)),
            "X-Linked-ETag": f'"{sha256}"',
            "Location": self._signed(sha256),
        }
        return web.Response(status=HTTPStatus.FOUND, headers=headers)

    async def _create(self, request: web.Request) -> web.Response:
        wanted = await request.json()
        repository = f"{wanted['organization']}/{wanted['name']}"
        url = {"url": f"{self.endpoint}/{repository}", "name": repository}
        if repository in self.repositories:
            return web.json_response({"error": "You already created this model repo"} | url, status=HTTPStatus.CONFLICT)
        self.create(repository, private=wanted.get("visibility") == "private")
        return web.json_response(url)

    async def _preupload(self, request: web.Request, repository: str, revision: str) -> web.Response:
        found, commit = self._find(repository, revision, known=True)
        files = (await request.json())["files"]
        there = found.commits[commit]
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular",
                "shouldIgnore": False,
                "oid": _version(file["path"], there[file["path"]]) if file["path"] in there else None,
            }
            for file in files
        ]
        return web.json_response({"files": modes, "commitOid": commit})

    async def _batch(self, request: web.Request) -> web.Response:
        asked = (await request.json())["objects"]
        objects: list[dict[str, Any]] = [
            each
            if each["oid"] in self._objects
            else each | {"actions": {"upload": {"href": self._signed(each["oid"]), "header": {}}}}
            for each in asked
        ]
        return web.json_response({"transfer": "basic", "objects": objects})

    async def _commit(self, request: web.Request, repository: str, branch: str) -> web.Response:
        found, parent = self._find(repository, branch, known=True)
        changes: dict[str, bytes | None] = {}
        for line in (await request.text()).splitlines():
            item = json.loads(line)
            value = item["value"]
            match item["key"]:
                case "file":
                    changes[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    changes[value["path"]] = self._objects[value["oid"]]
                case "deletedFile":
                    changes[value["path"]] = None
                case "deletedFolder":
                    changes |= dict.fromkeys(_below(found.commits[parent], value["path"].rstrip("/")))
                case "header" if value.get("parentCommit", parent) != parent:
                    raise Refusal(HTTPStatus.PRECONDITION_FAILED, "", "A commit has happened since")
        commit = self.commit(repository, changes, branch=branch)
        url = f"{self.endpoint}/{repository}/commit/{commit}"
        return web.json_response({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    # The CDN

    async def _cdn(self, request: web.Request) -> web.StreamResponse:
        self._requests[counted(request.method, request.path)] += 1
        if request.query.get("signature") != self._signature:
            return web.Response(status=HTTPStatus.FORBIDDEN)
        if "Authorization" in request.headers:
            return web.Response(status=HTTPStatus.BAD_REQUEST, text="Only one auth mechanism allowed")
        sha256 = request.path.rpartition("/")[2]
        if request.method == "PUT":
            content = await request.read()
            if hashlib.sha256(content).hexdigest() != sha256:
                return web.Response(status=HTTPStatus.BAD_REQUEST)
            self._objects[sha256] = content
            return web.Response()
        if sha256 not in self._objects:
            return web.Response(status=HTTPStatus.NOT_FOUND)
        return await answer(request, self._objects[sha256], f'"{sha256}"')

    def _signed(self, sha256: str) -> str:
        return f"{self.scheme}://{self.host}:{self.cdn_port}/cdn/{sha256}?signature={quote(self._signature)}"


def _split(path: str) -> tuple[str, str]:
    organisation, name, *inside = path.split("/")
    return f"{organisation}/{name}", "/".join(inside)


def _below(files: Files, path: str) -> list[str]:
    return [name for name in files if f"{name}/".startswith(f"{path}/")]


def _git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _is_large(path: str, content: bytes) -> bool:
    # LFS has no empty files.
    return path.endswith(LFS_SUFFIXES) and bool(content)


def _version(path: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if _is_large(path, content) else _git_id(content)


def _blob(path: str, content: bytes, *, sibling: bool) -> dict[str, Any]:
    """A file's metadata; the two listings name the same things differently."""
    blob: dict[str, Any] = {"size": len(content)}
    pointer = ""
    if _is_large(path, content):
        sha256 = hashlib.sha256(content).hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n"
        blob["lfs"] = {"size": len(content), "pointerSize": len(pointer), "sha256" if sibling else "oid": sha256}
    blob["blobId" if sibling else "oid"] = _git_id(pointer.encode() if pointer else content)
    return blob
