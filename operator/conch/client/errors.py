"""What ends a command of this room before its answer."""


class ClientError(Exception):
    """Told to the person as it is: what is wrong and what to do about it."""


class NothingReadyError(ClientError):
    """There is no pod to connect to; there may be one later."""


class ForwardError(ClientError):
    """kubectl did not forward; in its own words."""
