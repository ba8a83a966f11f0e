"""Checks a packaged repository, or any repository of Triton models, without a server: `conch package check`."""
