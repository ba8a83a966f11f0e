"""How many connections this process may have: each held request is one."""

import resource


def raise_limit() -> None:
    """As many as the container may have. Programs begin with fewer (often 1,024), for the sake of old ones."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
