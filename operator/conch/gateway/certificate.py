"""The certificate of the models' ports: whether its files can be used, said before clients notice.

Envoy reads the files itself. The sidecar reads them as well, for Envoy says what is wrong with them in its log only.
"""

import asyncio
import hashlib
import itertools
import ssl
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Gauge

from conch.gateway.envoy import tls
from conch.gateway.envoy.admin import EnvoyAdmin, EnvoyAwayError, StatType

_log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 2.0
"""How often the files are looked at. A kubelet takes up to a minute or two to bring a Secret's change."""
_LOOKS_PER_QUESTION: Final = 30
"""Of Envoy's statistics: with thousands of clusters they are dear to search."""
_NOT_COUNTED: Final = 2**32 - 1
"""What Envoy says for some seconds after it was given its first certificate (tried on 1.40)."""


class CertificateMetrics:
    """What Prometheus is told of the certificate."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """In a registry of its own: a gateway without TLS tells nothing."""
        self._registry = registry
        self._usable = Gauge(
            "conch_gateway_certificate_usable",
            "1 if the mounted certificate and key can be used; with 0 the ones before are.",
            registry=registry,
        )
        self._days_left: Gauge | None = None

    @property
    def has_days_left(self) -> bool:
        """Whether any were told."""
        return self._days_left is not None

    def tell_usable(self, usable: bool) -> None:
        """Whether the files can be used."""
        self._usable.set(usable)

    def tell_days_left(self, days: int) -> None:
        """Of the certificate that is served; not told before there is one."""
        if self._days_left is None:
            self._days_left = Gauge(
                "conch_gateway_certificate_days_left",
                "Days until the first certificate ends that Envoy uses: its own, or an authority that it trusts.",
                registry=self._registry,
            )
        self._days_left.set(days)


class Certificate:
    """The mounted Secret and what Envoy is told of it. `prepare`, then one task runs `run`."""

    def __init__(self, mounted: Path, *, dynamic_folder: Path, admin: EnvoyAdmin, registry: CollectorRegistry) -> None:
        """`mounted` is the Secret's folder; `dynamic_folder` is what Envoy watches."""
        self._mounted = mounted
        self._file = dynamic_folder / tls.SDS_FILE
        self._admin = admin
        self._seen: str | None = None
        self._problem = ""
        self._metrics = CertificateMetrics(registry)

    def prepare(self) -> None:
        """Write what Envoy needs to start, whatever the files hold: with none that it can use it serves nobody."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._look()

    async def run(self) -> None:
        """Follow the files, until cancelled."""
        for looks in itertools.count():
            await asyncio.sleep(LOOK_SECONDS)
            self._look()
            if not self._metrics.has_days_left or looks % _LOOKS_PER_QUESTION == 0:
                await self._tell_days_left()

    async def not_ready(self) -> str:
        """Why no client can connect; empty if one can. Files that break later change nothing for clients."""
        return "" if not self._problem or await self._is_served() else self._problem

    def _look(self) -> None:
        content = b"\0".join(_read(self._mounted / name) for name in (tls.CERTIFICATE_CHAIN, tls.PRIVATE_KEY))
        seen = hashlib.sha256(content).hexdigest()
        if seen == self._seen:
            return
        is_first, self._seen = self._seen is None, seen
        self._problem = _problem(self._mounted)
        self._metrics.tell_usable(not self._problem)
        if self._problem:
            _log.error("the certificate cannot be used; gateways go on with the one before", problem=self._problem)
        elif not is_first:
            _log.info("another certificate")
        if is_first or not self._problem:
            fresh = self._file.with_suffix(".new")
            fresh.write_text(tls.render_secret(self._mounted, seen[:12]))
            fresh.rename(self._file)

    async def _is_served(self) -> bool:
        taken = await self._admin.stats(_exactly(tls.SECRETS_TAKEN), only=StatType.COUNTERS)
        return bool(taken.get(tls.SECRETS_TAKEN))

    async def _tell_days_left(self) -> None:
        try:
            if not await self._is_served():
                return
            told = await self._admin.stats(_exactly(tls.DAYS_LEFT), only=StatType.GAUGES)
        except EnvoyAwayError:
            return
        days = int(told.get(tls.DAYS_LEFT, 0))
        if days != _NOT_COUNTED:
            self._metrics.tell_days_left(days)


def _problem(folder: Path) -> str:
    """Why the pair cannot be used; empty if it can. Names the entries of the Secret, never what is in them."""
    for name in (tls.CERTIFICATE_CHAIN, tls.PRIVATE_KEY):
        if not _read(folder / name).strip():
            return f"the Secret of gateway.tls.secretName has no {name}, or an empty one"

    def no_passphrase() -> str:
        raise ValueError("the key has a passphrase")

    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / tls.CERTIFICATE_CHAIN, folder / tls.PRIVATE_KEY, password=no_passphrase)
    except (ssl.SSLError, ValueError, OSError) as error:
        words = getattr(error, "reason", None) or str(error) or type(error).__name__
        return (
            f"{tls.CERTIFICATE_CHAIN} and {tls.PRIVATE_KEY} in the Secret of gateway.tls.secretName are not a "
            f"certificate chain (PEM) and its key: {words}"
        )
    return ""


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _exactly(stat: str) -> str:
    return f"^{stat.replace('.', '[.]')}$"
