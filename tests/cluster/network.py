"""The one bridge that pods, nodes and Services live on, and the rules that keep its traffic on this machine."""

from __future__ import annotations

import json
import subprocess
from ipaddress import ip_network
from pathlib import Path

from tests.cluster.constants import (
    BRIDGE,
    BRIDGE_ADDRESS,
    BRIDGE_NETWORK,
    NFT_TABLE,
    NODES,
    SERVICE_NETWORK,
)

_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    # A Service answers from a pod on the same bridge: without netfilter on the bridge the answer would keep the pod's
    # address and the client would drop it.
    "net/bridge/bridge-nf-call-iptables": "1",
}

_RULES = f"""
table inet {NFT_TABLE} {{
    chain forward {{
        type filter hook forward priority -10; policy accept;
        iifname "{BRIDGE}" oifname != "{BRIDGE}" reject
        iifname != "{BRIDGE}" oifname "{BRIDGE}" drop
    }}
    chain input {{
        type filter hook input priority -10; policy accept;
        ip daddr {{ {BRIDGE_NETWORK}, {SERVICE_NETWORK} }} iifname != {{ "lo", "{BRIDGE}" }} drop
    }}
}}
"""


def sysctls_to_change() -> dict[str, str]:
    """The sysctls that the cluster needs otherwise than they are, with their present values."""
    present = {name: Path("/proc/sys") / name for name in _SYSCTLS}
    values = {name: path.read_text().strip() for name, path in present.items() if path.exists()}
    return {name: value for name, value in values.items() if value != _SYSCTLS[name]}


def up() -> None:
    """Makes the bridge with its addresses, the route of the Service range and the rules, and sets the sysctls."""
    for name in sysctls_to_change():
        (Path("/proc/sys") / name).write_text(_SYSCTLS[name])
    prefix = ip_network(BRIDGE_NETWORK).prefixlen
    _ip("link", "add", BRIDGE, "type", "bridge")
    _ip("address", "add", f"{BRIDGE_ADDRESS}/{prefix}", "dev", BRIDGE)
    for node in NODES:
        _ip("address", "add", f"{node.address}/32", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")
    # Without it a packet for a Service that has no rule yet would leave by the machine's default route.
    _ip("route", "add", SERVICE_NETWORK, "dev", BRIDGE, "src", BRIDGE_ADDRESS)
    subprocess.run(["nft", "-f", "-"], input=_RULES, text=True, check=True)


def down(*, sysctls: dict[str, str], own_kube_proxy: bool) -> None:
    """Removes what `up` made and what the CNI plugin and our kube-proxy made on it; missing things are fine."""
    if (Path("/sys/class/net") / BRIDGE).exists():
        for port in (Path("/sys/class/net") / BRIDGE / "brif").iterdir():
            _ip("link", "delete", port.name, check=False)
        _ip("link", "delete", BRIDGE)
    for family, table in nft_tables():
        if table == NFT_TABLE or (own_kube_proxy and table == "kube-proxy"):
            subprocess.run(["nft", "delete", "table", family, table], check=False, capture_output=True)
    for name, value in sysctls.items():
        (Path("/proc/sys") / name).write_text(value)


def nft_tables() -> list[tuple[str, str]]:
    """(family, name) of every nftables table on the machine."""
    result = subprocess.run(["nft", "-j", "list", "tables"], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        return []
    entries = json.loads(result.stdout)["nftables"]
    return [(entry["table"]["family"], entry["table"]["name"]) for entry in entries if "table" in entry]


def overlapping_routes() -> list[str]:
    """Routes of the machine, other than ours and the default, that the cluster's ranges collide with."""
    result = subprocess.run(["ip", "-j", "-4", "route"], capture_output=True, text=True, check=True)
    ours = [ip_network(BRIDGE_NETWORK), ip_network(SERVICE_NETWORK)]
    found = []
    for route in json.loads(result.stdout):
        if route["dst"] == "default" or route.get("dev") == BRIDGE:
            continue
        if any(ip_network(route["dst"]).overlaps(each) for each in ours):
            found.append(f"{route['dst']} dev {route.get('dev', '?')}")
    return found


def _ip(*args: str, check: bool = True) -> None:
    subprocess.run(["ip", *args], check=check, capture_output=True)
