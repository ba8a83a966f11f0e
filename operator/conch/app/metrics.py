"""Metrics of the operator process."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

RECONCILES: Final = Counter("conch_reconciles", "Objects planned, by outcome.", ["outcome"])
RECONCILE_SECONDS: Final = Histogram(
    "conch_reconcile_seconds",
    "Time from taking an object from the queue to the last write of its plan.",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30),
)
ACTIONS: Final = Counter("conch_actions", "Actions carried out, by kind of action and child.", ["action", "child"])
STATUS_WRITES: Final = Counter("conch_status_writes", "Statuses written.")
QUEUE_LENGTH: Final = Gauge("conch_queue_length", "Objects that are due to be planned.")
LEADING: Final = Gauge("conch_leading", "1 while this process leads.")
OBJECTS: Final = Gauge("conch_model_deployments", "ModelDeployments known.")
AGENT_POLLS: Final = Counter("conch_agent_polls", "Questions to model pods' agents, by outcome.", ["outcome"])
GATEWAY_POLLS: Final = Counter("conch_gateway_polls", "Questions to gateways, by outcome.", ["outcome"])
WAKES: Final = Counter("conch_wakes", "Times that a gateway said that requests are held.")
ROLLOUTS: Final = Counter("conch_rollouts", "Rollouts that are over, by outcome and cause.", ["outcome", "cause"])
COMMANDS: Final = Counter("conch_commands", "Commands heeded, and whether they were accepted.", ["command", "accepted"])
SCALINGS: Final = Counter("conch_scalings", "Changes of a count by the autoscaler.", ["direction"])
SCALING_FAULTS: Final = Counter("conch_scaling_faults", "Looks of the autoscaler that failed; see the log.")
TUNING_SECONDS: Final = Histogram(
    "conch_tuning_seconds",
    "Time to learn how one object's load is best followed.",
    buckets=(0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
EDGE_RESTARTS: Final = Counter("conch_edge_starts", "Starts of the kopf edge.")
