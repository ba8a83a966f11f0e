"""The gateway alone: a real Envoy and the real `conch gateway` as processes, without a cluster."""
