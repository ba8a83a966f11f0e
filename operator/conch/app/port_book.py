"""Which object has which port on the gateways: read from all statuses, and what was promised and is not written yet."""

import hashlib
from collections import deque

from conch.api.model_deployment import ModelDeployment


class PortBook:
    """Gives every object a port of its own. Of two that claim the same one, the older keeps it."""

    def __init__(self, ports: range) -> None:
        self._ports = ports
        self._claims: dict[int, dict[str, str]] = {}
        """port -> uid -> creation time, of every object whose status names the port."""
        self._of: dict[str, int] = {}
        """uid -> the port that its status names."""
        self._promised: dict[str, int] = {}
        self._resting: deque[int] = deque(maxlen=len(ports) // 2)
        """Ports that were given back, the newest last: for a while Services of before still lead to them."""

    def note(self, owner: ModelDeployment) -> None:
        """Take in what an object's status says."""
        port = owner.status.gateway.port if owner.status.gateway else None
        if port == self._of.get(owner.uid):
            return
        self._strike(owner.uid)
        if port is not None:
            self._claims.setdefault(port, {})[owner.uid] = owner.created
            self._of[owner.uid] = port
            self._promised.pop(owner.uid, None)

    def forget(self, uid: str) -> None:
        """An object is gone, and its port is free."""
        self._strike(uid)
        self._promised.pop(uid, None)

    def port_of(self, owner: ModelDeployment) -> int | None:
        """The port that the object has, or shall have; None when every port is taken.

        One that it has stays, also when the installation's range was changed since.
        """
        held = self._of.get(owner.uid)
        if held is not None and self._oldest(held) == owner.uid:
            return held
        promised = self._promised.get(owner.uid)
        if promised is not None and promised not in self._claims:
            return promised
        return self._promise(owner.uid)

    def _promise(self, uid: str) -> int | None:
        """A free port near a place that the uid chooses, so that two leaders hardly ever give one port twice.

        One that somebody gave back is taken last, the longest unused first.
        """
        self._promised.pop(uid, None)
        taken = self._claims.keys() | set(self._promised.values())
        resting = set(self._resting)
        start = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:4]) % len(self._ports)
        ports = (*self._ports[start:], *self._ports[:start])
        fresh = (port for port in ports if port not in taken and port not in resting)
        rested = (port for port in self._resting if port not in taken)
        port = next(fresh, None) or next(rested, None)
        if port is not None:
            self._promised[uid] = port
        return port

    def _oldest(self, port: int) -> str:
        return min(self._claims[port].items(), key=lambda claim: (claim[1], claim[0]))[0]

    def _strike(self, uid: str) -> None:
        port = self._of.pop(uid, None)
        if port is not None:
            del self._claims[port][uid]
            if not self._claims[port]:
                del self._claims[port]
                self._resting.append(port)
