"""A line between a client and a server that does one thing wrong, once, at a given byte; for `faults.py line`."""

import socket, threading, time


class Line:
    """Listens on `address`, and passes everything on to a server: so many bytes a second in a direction, or as fast as it goes."""

    def __init__(self, server, rate=None):
        self.rate = rate
        host, port = server.rsplit(":", 1)
        self.server, self.lock = (host, int(port)), threading.Lock()
        self.direction, self.kind, self.place, self.passed = "up", "good", 0, {"up": 0, "down": 0}
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def plan(self, direction, kind, place):
        """From now on: `cut` (both ways, at once), `end` (as if all had been said), `flip` a bit, or `stall`, at that byte of a direction."""
        with self.lock:
            self.direction, self.kind, self.place, self.passed = direction, kind, place, {"up": 0, "down": 0}

    def close(self):
        self.listener.close()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self.server)
            except OSError:
                client.close()
                continue
            for source, target, direction in ((client, server, "up"), (server, client, "down")):
                threading.Thread(target=self.move, args=(source, target, direction), daemon=True).start()

    def fault(self, direction, count):
        """What happens within the next so many bytes, and after how many of them."""
        with self.lock:
            start = self.passed[direction]
            self.passed[direction] += count
            if direction == self.direction and self.kind != "good" and start <= self.place < start + count:
                kind, self.kind = self.kind, "good"
                return kind, self.place - start
        return "good", count

    def move(self, source, target, direction):
        try:
            while data := source.recv(16 << 10):
                kind, place = self.fault(direction, len(data))
                if kind == "flip":
                    data = data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1:]
                elif kind != "good":
                    target.sendall(data[:place])
                    if kind == "stall":
                        # Longer than anybody is waited for on the way to something else.
                        threading.Event().wait(1.5)
                    if kind == "end":
                        target.shutdown(socket.SHUT_WR)
                        return
                    break
                target.sendall(data)
                if self.rate:
                    time.sleep(len(data) / self.rate)
        except OSError:
            pass
        for side in (source, target):
            try:
                side.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
