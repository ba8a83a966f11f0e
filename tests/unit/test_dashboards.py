"""The form of the dashboard, and that the README's way to scrape finds what the chart runs; contract tests ask it."""

import json
import re
from itertools import combinations
from typing import Any, Final

import pytest
import yaml

from tests.cluster.constants import REPOSITORY

DASHBOARDS: Final = REPOSITORY / "manifests" / "dashboards"
DASHBOARD: Final[dict[str, Any]] = json.loads((DASHBOARDS / "conch.json").read_text())
PANELS: Final[list[dict[str, Any]]] = DASHBOARD["panels"]
OF_GRAFANA: Final = {"__rate_interval"}


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    cells = [
        {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        for at in (panel["gridPos"] for panel in PANELS)
    ]
    assert all(max(x for x, _ in each) < 24 for each in cells), "Grafana's grid has 24 columns"
    assert not any(one & other for one, other in combinations(cells, 2))


@pytest.mark.parametrize("panel", [each for each in PANELS if each["type"] != "row"], ids=lambda each: each["title"])
def test_a_panel_says_what_it_shows_and_asks_the_chosen_data_source(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    letters = [target["refId"] for target in panel["targets"]]
    assert letters
    assert len(set(letters)) == len(letters)
    for asks in (panel, *panel["targets"]):
        assert asks["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_only_variables_that_are_defined_are_used() -> None:
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert list(variables) == ["datasource", "namespace", "name"]
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert used == set(variables) | OF_GRAFANA


def test_the_way_to_scrape_in_the_readme_finds_the_operator_and_the_gateways() -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", (DASHBOARDS / "README.md").read_text(), flags=re.DOTALL)
    [job] = yaml.safe_load(text)["scrape_configs"]
    assert job["honor_labels"] is True, "the figures' own namespace is the model's"
    kept = {rule["source_labels"][0]: rule["regex"] for rule in job["relabel_configs"] if rule.get("action") == "keep"}
    manifests = yaml.safe_load_all((REPOSITORY / "manifests" / "install.yaml").read_text())
    found = set()
    for template in (each["spec"]["template"] for each in manifests if each["kind"] == "Deployment"):
        labels = template["metadata"]["labels"]
        assert re.fullmatch(
            kept["__meta_kubernetes_pod_label_app_kubernetes_io_name"], labels["app.kubernetes.io/name"]
        )
        for container in template["spec"].get("initContainers", []) + template["spec"]["containers"]:
            for port in container.get("ports", ()):
                if re.fullmatch(kept["__meta_kubernetes_pod_container_port_name"], port["name"]):
                    found.add((labels["app.kubernetes.io/component"], port["containerPort"]))
    assert found == {("operator", 8080), ("gateway", 8080)}
