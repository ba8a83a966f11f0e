"""Writes the files that are generated: the CRD, its copy in the chart, and the manifest rendered from the chart.

`python -m tests.generate` writes them; with `--check` it writes nothing, names those that are stale and exits with 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

import yaml

from conch.api.crd import custom_resource_definition
from tests.cluster import binaries

ROOT: Final = Path(__file__).parents[1]
CHART: Final = ROOT / "charts" / "conch"
CRD: Final = ROOT / "crds" / "modeldeployments.yaml"
CHART_CRD: Final = CHART / "files" / "crd.yaml"
INSTALL: Final = ROOT / "manifests" / "install.yaml"
NAMESPACE: Final = "conch-system"

_INSTALL_HEAD: Final = f"""\
# Installs Conch without Helm. Generated from charts/conch by `python -m tests.generate`; change the chart instead.
#
#   kubectl apply --server-side -f install.yaml
#   openssl rand -hex 32 \\
#     | kubectl -n {NAMESPACE} create secret generic conch-installation-key --from-file=key=/dev/stdin
#   openssl rand -hex 32 \\
#     | kubectl -n {NAMESPACE} create secret generic conch-gateway-token --from-file=token=/dev/stdin
#
# The second command makes the installation's key, once; the operator's pods wait for it. It is in no file on purpose,
# and it must not change: every model server's key is derived from it. The third makes what the operator shows to the
# gateways; both wait for it.
# No image is published yet: set the image of operator and gateways, here and in the settings below (images.agent), to
# yours.
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    pod-security.kubernetes.io/enforce: restricted
"""


class RenderError(RuntimeError):
    """Helm did not render the chart; the message is Helm's."""


def main(arguments: list[str]) -> int:
    """Write the stale files, or with `--check` name them; the number of stale files decides the exit status then."""
    parser = argparse.ArgumentParser(prog="python -m tests.generate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    check = parser.parse_args(arguments).check
    crd = crd_text()
    stale = _bring_up_to_date({CRD: crd, CHART_CRD: crd}, check=check)
    # Rendered from the chart as it lies there: so only after the chart's copy of the CRD has been written.
    stale += _bring_up_to_date({INSTALL: install_text()}, check=check)
    for path in stale:
        print(f"{'stale' if check else 'written'}: {path.relative_to(ROOT)}")
    if check and stale:
        print("run: python -m tests.generate", file=sys.stderr)
        return 1
    return 0


def crd_text() -> str:
    """What `conch crd` prints."""
    return yaml.safe_dump(custom_resource_definition(), sort_keys=False, width=120)


def install_text() -> str:
    """The chart with its default values, in its namespace, with the user's own Secrets for key and token."""
    rendered = render(
        *("--set", "installationKey.existingSecret=conch-installation-key"),
        *("--set", "gateway.existingTokenSecret=conch-gateway-token"),
    )
    # Nothing in this file is Helm's.
    return _INSTALL_HEAD + rendered.replace(
        "app.kubernetes.io/managed-by: Helm", "app.kubernetes.io/managed-by: kubectl"
    )


def render(*options: str) -> str:
    """What `helm template` makes of the chart; raises RenderError with Helm's own words."""
    helm = binaries.ensure("helm") / "helm"
    command = [str(helm), "template", "conch", str(CHART), "--namespace", NAMESPACE, *options]
    rendered = subprocess.run(command, capture_output=True, text=True, check=False)
    if rendered.returncode != 0:
        raise RenderError(rendered.stderr.strip())
    return rendered.stdout


def _bring_up_to_date(wanted: dict[Path, str], *, check: bool) -> list[Path]:
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if not check:
        for path in stale:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
