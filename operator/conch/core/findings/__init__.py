"""Why an object is not what it should be: an ordered chain of small checks over one gathered situation.

Each check looks for one thing and returns a finding or None; the first finding becomes the reason of the conditions. A
check's first line says what holds when it passes: `conch why` shows the chain in these words.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from conch.core.finding import Finding
from conch.core.findings import children, gateways, model, pods, rollout, routes, scheduler, spec
from conch.core.situation import Situation

Check = Callable[[Situation], Finding | None]

CHECKS: Final[tuple[Check, ...]] = (
    spec.spec_is_readable,
    spec.source_is_allowed,
    rollout.revision_is_not_rejected,
    rollout.the_way_back_is_over,
    gateways.a_port_is_free,
    routes.gateway_api_is_installed,
    children.names_are_free,
    children.admin_key_is_ours,
    children.children_are_accepted,
    children.earlier_obstacles_are_gone,
    pods.pods_can_be_created,
    model.agents_report_no_failure,
    pods.images_are_pulled,
    pods.containers_are_configured,
    pods.containers_keep_running,
    pods.pods_are_not_evicted,
    pods.pods_have_volumes,
    pods.pods_have_a_node,
    scheduler.a_scheduler_looks_at_the_pods,
    model.agents_can_be_asked,
    model.pods_serve_the_pinned_files,
    rollout.the_golden_set_passes,
    pods.nodes_answer,
    model.replicas_are_ready,
    rollout.the_rollout_is_over,
    gateways.gateways_are_there,
    gateways.gateways_route,
    routes.gateways_accept_the_routes,
    gateways.service_sends_to_it,
)


def first_finding(situation: Situation) -> Finding | None:
    """The finding of the first check that does not pass, with that check's name."""
    for check in CHECKS:
        if (finding := check(situation)) is not None:
            return replace(finding, check=check.__name__)
    return None
