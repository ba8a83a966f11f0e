"""Tests of `conch package` that need torch, run by `make packaging` in an environment of their own."""
