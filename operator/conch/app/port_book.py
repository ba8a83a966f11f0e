"""Which object has which port on the gateways: read from all statuses, and what was promised and is not written yet."""

import hashlib

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

    def note(self, owner: ModelDeployment) -> None:
        """Take in what an object's status says."""
        port = owner.status.gateway.port if owner.status.gateway else None
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
        """The first free port from a place that the uid chooses: so two leaders hardly ever give one port twice."""
        self._promised.pop(uid, None)
        taken = self._claims.keys() | set(self._promised.values())
        start = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:4]) % len(self._ports)
        for step in range(len(self._ports)):
            port = self._ports[(start + step) % len(self._ports)]
            if port not in taken:
                self._promised[uid] = port
                return port
        return None

    def _oldest(self, port: int) -> str:
        return min(self._claims[port].items(), key=lambda claim: (claim[1], claim[0]))[0]

    def _strike(self, uid: str) -> None:
        port = self._of.pop(uid, None)
        if port is not None:
            del self._claims[port][uid]
            if not self._claims[port]:
                del self._claims[port]
