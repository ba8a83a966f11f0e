#!/bin/sh
# NVIDIA's image has an entrypoint that runs its arguments; so has this one, and the pod passes `tritonserver ...` as arguments.
exec "$@"
