"""One file behind https:// (or http:// where the policy allows it)."""

from collections.abc import AsyncGenerator, Mapping
from urllib.parse import unquote, urlsplit

from conch.api.reasons import Reason
from conch.api.source import HttpSource
from conch.store.digest import refused_name
from conch.store.http_client import HttpClient, Opened, basic, bearer, total_bytes, username_and_password
from conch.store.remote import RESOLVED_MOST, Chunk, Listing, RemoteFile, Surroundings


class HttpsRemote:
    """A URL, with the Secret's entries `username` and `password`, or `token`, if it has them."""

    def __init__(self, source: HttpSource, surroundings: Surroundings) -> None:
        self._source = source
        self._surroundings = surroundings
        self._client = HttpClient(surroundings)

    async def list(self) -> Listing:
        """The one file; its version is a strong ETag, as RFC 9110 asks of If-Range, where the server gives parts."""
        name = self._file_name()
        size, ranges = None, False
        async with self._get({"Range": "bytes=0-0"}) as response:
            match response.status:
                case 206:
                    size, ranges = total_bytes(response, 0), True
                case 200:
                    # Its body is not read: it is the whole file.
                    size = response.content_length
                case 416:
                    if response.headers.get("Content-Range") == "bytes */0":
                        size = 0
                case status:
                    self._client.refuse_status(status)
            etag = response.headers.get("ETag", "")
            resolved = (etag or response.headers.get("Last-Modified", ""))[:RESOLVED_MOST]
        version = etag if ranges and etag.startswith('"') else ""
        file = RemoteFile(path=name, key=self._source.url, size=size, version=version)
        return Listing(files=(file,), resolved=resolved, folder=False)

    def read(self, file: RemoteFile, start: int, end: int | None) -> AsyncGenerator[Chunk, None]:
        """The file's bytes, as `Remote` says."""
        return self._client.read_part(self._get, file, start, end, etag=file.version)

    async def close(self) -> None:
        """End all connections."""
        await self._client.close()

    def _get(self, headers: Mapping[str, str]) -> Opened:
        login = username_and_password(self._surroundings)
        authorization = basic(*login) if login else bearer(self._surroundings, "token")
        return self._client.get(self._source.url, headers, authorization)

    def _file_name(self) -> str:
        name = unquote(urlsplit(self._source.url).path, errors="surrogateescape").rpartition("/")[2]
        if name in ("", ".", "..") or "\0" in name or refused_name(name.encode(errors="surrogateescape")):
            raise self._client.error(Reason.INVALID_MODEL, "it does not end in a usable file name; rename the file")
        return name
