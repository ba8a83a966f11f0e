"""A thousand models in a real API server with fake nodes: the operator measured against plain Deployments."""
