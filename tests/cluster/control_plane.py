"""The command lines of etcd, the API server, the controller manager and the scheduler, and how their health is asked.

Used by the whole cluster (on the bridge) and by `ApiServer` (on loopback); nothing here starts a process.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import pki, waiting

AUDIT_POLICY: Mapping[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        # Leases are renewed every few seconds by everyone: without this rule they are most of the log.
        {"level": "None", "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
        {"level": "Metadata"},
    ],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """All files that the control plane's parts know each other by."""

    authority: pki.KeyPair
    api_server: pki.KeyPair
    kubelet_client: pki.KeyPair
    service_accounts: Path
    admin: Path
    controller_manager: Path
    scheduler: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """Where the four parts live and listen."""

    binaries: Path
    state: Path
    logs: Path
    address: str
    api_port: int
    etcd_client_port: int
    etcd_peer_port: int
    controller_manager_port: int
    scheduler_port: int
    service_network: str
    client_qps: int = 0
    """Calls per second (twice that in a burst) of the controller manager and the scheduler; 0: their own default."""
    audit_policy: Mapping[str, Any] = field(default_factory=lambda: AUDIT_POLICY)
    audit_megabytes: int = 50
    """Size at which the audit log is rotated; only one older part is kept."""
    profiling: bool = False
    """Whether the API server can be asked where its time goes."""

    @property
    def server(self) -> str:
        """The API server's address."""
        return f"https://{self.address}:{self.api_port}"

    def etcd(self) -> list[str]:
        """One member, on loopback, without fsync: the data is thrown away with the cluster."""
        client = f"http://127.0.0.1:{self.etcd_client_port}"
        peer = f"http://127.0.0.1:{self.etcd_peer_port}"
        return [
            str(self.binaries / "etcd"),
            "--name=conch",
            f"--data-dir={self.state / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=conch={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
            "--quota-backend-bytes=1073741824",
        ]

    def api_server(self, credentials: Credentials) -> list[str]:
        """With the default admission plugins (PodSecurity, ValidatingAdmissionPolicy, ...) and NodeRestriction."""
        authority = credentials.authority
        return [
            str(self.binaries / "kube-apiserver"),
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={self.api_port}",
            f"--etcd-servers=http://127.0.0.1:{self.etcd_client_port}",
            f"--service-cluster-ip-range={self.service_network}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--client-ca-file={authority.certificate}",
            f"--tls-cert-file={credentials.api_server.certificate}",
            f"--tls-private-key-file={credentials.api_server.key}",
            f"--cert-dir={self.state / 'pki'}",
            f"--kubelet-certificate-authority={authority.certificate}",
            f"--kubelet-client-certificate={credentials.kubelet_client.certificate}",
            f"--kubelet-client-key={credentials.kubelet_client.key}",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={credentials.service_accounts}",
            f"--service-account-signing-key-file={credentials.service_accounts}",
            f"--audit-policy-file={self.state / 'audit-policy.yaml'}",
            f"--audit-log-path={self.logs / 'audit.log'}",
            f"--audit-log-maxsize={self.audit_megabytes}",
            "--audit-log-maxbackup=1",
            f"--profiling={str(self.profiling).lower()}",
            "--shutdown-delay-duration=0s",
        ]

    def controller_manager(self, credentials: Credentials) -> list[str]:
        """Every default controller, each with a service account of its own as in a real cluster."""
        return [
            str(self.binaries / "kube-controller-manager"),
            f"--kubeconfig={credentials.controller_manager}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.controller_manager_port}",
            f"--cert-dir={self.state / 'pki'}",
            "--leader-elect=false",
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={credentials.service_accounts}",
            f"--root-ca-file={credentials.authority.certificate}",
            f"--cluster-signing-cert-file={credentials.authority.certificate}",
            f"--cluster-signing-key-file={credentials.authority.key}",
            f"--flex-volume-plugin-dir={self.state / 'volume-plugins'}",
            *self._client_limits(),
        ]

    def scheduler(self, credentials: Credentials) -> list[str]:
        """The default scheduler."""
        return [
            str(self.binaries / "kube-scheduler"),
            f"--kubeconfig={credentials.scheduler}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.scheduler_port}",
            f"--cert-dir={self.state / 'pki'}",
            "--leader-elect=false",
            *self._client_limits(),
        ]

    def _client_limits(self) -> list[str]:
        qps = self.client_qps
        return [f"--kube-api-qps={qps}", f"--kube-api-burst={2 * qps}"] if qps else []

    def prepare(self, *, extra_hosts: tuple[str, ...] = ()) -> tuple[Credentials, pki.Authority]:
        """Makes the certificates and writes every file that the command lines name."""
        self.state.mkdir(parents=True, exist_ok=True, mode=0o711)
        self.logs.mkdir(parents=True, exist_ok=True)
        (self.state / "audit-policy.yaml").write_text(yaml.safe_dump(dict(self.audit_policy)))
        authority = pki.Authority(self.state / "pki")
        hosts = (
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
            "127.0.0.1",
            *extra_hosts,
        )
        credentials = Credentials(
            authority=authority.pair,
            api_server=authority.issue("api-server", "kube-apiserver", hosts={*hosts, self.address}),
            kubelet_client=authority.issue(
                "kubelet-client", "kube-apiserver-kubelet-client", groups=["system:masters"]
            ),
            service_accounts=authority.service_account_key(),
            admin=self.kubeconfig(authority, "admin", "conch-admin", groups=["system:masters"]),
            controller_manager=self.kubeconfig(authority, "controller-manager", "system:kube-controller-manager"),
            scheduler=self.kubeconfig(authority, "scheduler", "system:kube-scheduler"),
        )
        return credentials, authority

    def kubeconfig(
        self, authority: pki.Authority, file_name: str, user: str, *, groups: list[str] | None = None
    ) -> Path:
        """Issues a client certificate and writes a kubeconfig with it."""
        pair = authority.issue(file_name, user, groups=groups or [])
        text = pki.kubeconfig(server=self.server, authority=authority.pair, client=pair)
        return pki.write_kubeconfig(self.state / f"{file_name}.kubeconfig", text)

    def ready(self) -> bool:
        """Whether the API server says that all of its start hooks are done (anonymous requests may ask that)."""
        context = ssl.create_default_context(cafile=str(self.state / "pki" / "ca.crt"))
        return waiting.answers(f"{self.server}/readyz", context=context)

    def etcd_ready(self) -> bool:
        """Whether etcd serves."""
        return waiting.answers(f"http://127.0.0.1:{self.etcd_client_port}/readyz")

    def controller_manager_ready(self) -> bool:
        """Whether the controller manager serves; its certificate is self-signed."""
        return _loopback_healthy(self.controller_manager_port)

    def scheduler_ready(self) -> bool:
        """Whether the scheduler serves; its certificate is self-signed."""
        return _loopback_healthy(self.scheduler_port)


def _loopback_healthy(port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return waiting.answers(f"https://127.0.0.1:{port}/healthz", context=context)
