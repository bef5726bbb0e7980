"""A network between people and the server that can fail: a TCP proxy that loses bytes or resets connections."""

import contextlib
import select
import socket
import struct
import threading

UP, DOWN = "up", "down"  # to the server, and from it


class Connection(threading.Thread):
    """One connection through the proxy. Bytes in the directions `lost` vanish, and so does the end of the stream."""

    def __init__(self, client: socket.socket, port: int, lost: frozenset[str]) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.server = socket.create_connection(("127.0.0.1", port))
        self.lost = lost
        self.broken = False

    def run(self) -> None:
        ways = {self.client: (self.server, UP), self.server: (self.client, DOWN)}
        with contextlib.suppress(OSError):
            while ways and not self.broken:
                for source in select.select(list(ways), [], [], 0.05)[0]:
                    sink, way = ways[source]
                    data = source.recv(1 << 16)
                    if data and way not in self.lost:
                        sink.sendall(data)
                    elif not data:
                        del ways[source]
                        if way not in self.lost:
                            sink.shutdown(socket.SHUT_WR)
        for end in (self.client, self.server):
            if self.broken:  # closing without lingering sends RST
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()


class Network:
    """Everybody's way to the server on `port`; its own address is `url`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.lost: frozenset[str] = frozenset()
        self.connections: list[Connection] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = Connection(self.listener.accept()[0], self.port, self.lost)
                self.connections.append(connection)
                connection.start()

    def lose(self, *ways: str) -> None:
        """From now on bytes that go these ways vanish, without a FIN or an RST."""
        self.lost = frozenset(ways)
        for connection in self.connections:
            connection.lost = self.lost

    def heal(self) -> None:
        """New connections work. Those that have lost bytes stay dead, as behind a router that has forgotten them."""
        self.lost = frozenset()

    def reset(self) -> None:
        """An RST to both ends of every connection."""
        for connection in self.connections:
            connection.broken = True

    def close(self) -> None:
        self.listener.close()
        self.reset()
