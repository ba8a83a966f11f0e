"""The sidecar of Envoy: renders what Envoy does, holds requests, tells the operator what the traffic is."""
