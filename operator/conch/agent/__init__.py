"""The sidecar of a model pod: brings the assigned model onto the volume and into Triton, and says how it goes."""
