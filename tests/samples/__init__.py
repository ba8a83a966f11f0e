"""Tests of manifests/samples on the whole local cluster, run by `make test-all`."""
