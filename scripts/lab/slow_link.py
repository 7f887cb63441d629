#!/usr/bin/env python3
"""A stand-in for the way to a far registry: every connection is slow to answer, or no faster than some rate.

The kernel's own delays (netem) are not in every kernel, and no shaper has a rate for each connection.
The nodes keep their registry's address: iptables turns what they send there to this program.

Usage: slow_link.py PORT TARGET-ADDRESS TARGET-PORT DELAY-MS BYTES-PER-SECOND     (0: no limit of its kind)
"""

import queue
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from background import Process, free_port
from settings import ADDRESS, BRIDGE, REGISTRY_PORT, LabError

LISTEN_SECONDS = 5
CHUNK = 1 << 16
WINDOW_CHUNKS = 128  # on their way in one direction: 8 MiB, far more than a link of 1 Gbit/s has in 20 ms


class SlowLink:
    """What all nodes have between them and the lab's registry, until it is closed.

    delay_s is what a round trip takes longer; connection_rate limits what each connection brings (bytes a
    second). 0 is no limit of its kind.
    """

    def __init__(self, delay_s: float, connection_rate: int) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="lab-link-")
        port = free_port(ADDRESS)
        words = map(str, (port, ADDRESS, REGISTRY_PORT, round(delay_s * 1000), connection_rate))
        command = [sys.executable, str(Path(__file__).resolve()), *words]
        self._process = Process(Path(self._directory.name) / "log", command)
        deadline = time.monotonic() + LISTEN_SECONDS
        while not self._listens(port):
            if time.monotonic() > deadline:
                said = self._process.words()
                self._end()
                raise LabError(f"the slow link does not listen on port {port}: {said}")
            time.sleep(0.05)
        to_registry = ["-i", BRIDGE, "-d", ADDRESS, "-p", "tcp", "--dport", str(REGISTRY_PORT)]
        self._rule = ["PREROUTING", *to_registry, "-j", "REDIRECT", "--to-ports", str(port)]
        try:
            _iptables("--insert", self._rule)
        except LabError:
            self._end()
            raise

    @staticmethod
    def _listens(port: int) -> bool:
        with socket.socket() as client:
            return client.connect_ex((ADDRESS, port)) == 0

    def close(self) -> None:
        """Give the nodes their registry back; connections through this end."""
        _iptables("--delete", self._rule)
        self._end()

    def _end(self) -> None:
        self._process.stop()
        self._directory.cleanup()


def _iptables(change: str, rule: list[str]) -> None:
    chain, *words = rule
    command = ["iptables", "--wait", "--table", "nat", change, chain, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)} failed: {done.stderr.strip()}")


class Lane:
    """One direction of a connection: what is read leaves `delay_s` later, at most `rate` bytes a second."""

    def __init__(self, source: socket.socket, target: socket.socket, delay_s: float, rate: int) -> None:
        self.source, self.target, self.delay_s, self.rate = source, target, delay_s, rate
        self._on_the_way: queue.Queue[tuple[float, bytes]] = queue.Queue(WINDOW_CHUNKS if delay_s else 2)
        for work in (self._read, self._write):
            threading.Thread(target=work, daemon=True).start()

    def _read(self) -> None:
        data = b"-"
        while data:
            try:
                data = self.source.recv(CHUNK)
            except OSError:
                data = b""
            self._on_the_way.put((time.monotonic() + self.delay_s, data))

    def _write(self) -> None:
        free_at = 0.0
        try:
            while True:
                due, data = self._on_the_way.get()
                wait = max(due, free_at) - time.monotonic()
                if wait > 0:
                    time.sleep(wait)
                if not data:
                    self.target.shutdown(socket.SHUT_WR)
                    return
                self.target.sendall(data)
                if self.rate:
                    free_at = max(free_at, time.monotonic() - 0.01) + len(data) / self.rate
        except OSError:
            for end in (self.source, self.target):
                end.close()
            while self._on_the_way.get()[1]:  # so that the reader is not left waiting
                pass


def _serve(port: int, target: tuple[str, int], delay_s: float, rate: int) -> None:
    listener = socket.create_server((ADDRESS, port), backlog=256)

    def connect(client: socket.socket) -> None:
        time.sleep(delay_s)  # the handshake's round trip
        try:
            server = socket.create_connection(target)
        except OSError:
            client.close()
            return
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Lane(client, server, delay_s / 2, 0)
        Lane(server, client, delay_s / 2, rate)

    while True:
        client, _ = listener.accept()
        threading.Thread(target=connect, args=(client,), daemon=True).start()


if __name__ == "__main__":
    port, address, target_port, delay_ms, bytes_per_second = sys.argv[1:]
    _serve(int(port), (address, int(target_port)), float(delay_ms) / 1000, int(bytes_per_second))
