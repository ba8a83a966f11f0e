"""A chain of models as one service: an ensemble made from one YAML list of steps."""
