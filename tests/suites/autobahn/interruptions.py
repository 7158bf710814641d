"""A way to a server on which it becomes its own program again and again, each time in the middle of something.

A module of tests/suites/autobahn/run, nothing to run.
"""

import contextlib
import queue
import random
import re
import signal
import socket
import threading

import harness

CHUNK_BYTES = 65536
HANDOVER_SECONDS_MAX = 10
# Of the first chunks of a connection, every so many-th is interrupted, and of the later ones.
FIRST_CHUNKS = 40
FIRST_CHUNKS_BETWEEN = 4
LATER_CHUNKS_BETWEEN = 64


class Handovers:
    """Those of one server, as its log tells of them."""

    def __init__(self):
        self.process = None
        self.millis = []
        self._ends = queue.Queue()
        self._lock = threading.Lock()

    def hear(self, line):
        """A line of the server's log."""
        if found := re.search(r"took over from crieur \S+: (\d+) connections?, (\d+) lost, in (\d+) ms", line):
            self._ends.put([int(number) for number in found.groups()])
        elif "is refused" in line or "has failed" in line:
            self._ends.put(line.strip())

    def cause(self):
        """Has one happen; says how many connections there were, when the next program serves."""
        with self._lock:
            self.process.send_signal(signal.SIGUSR2)
            try:
                end = self._ends.get(timeout=HANDOVER_SECONDS_MAX)
            except queue.Empty:
                end = f"no handover in {HANDOVER_SECONDS_MAX} s"
            if isinstance(end, str):
                raise harness.Failure(end)
            connections, lost, millis = end
            if lost:
                raise harness.Failure(f"{lost} of {connections + lost} connections are lost")
            self.millis.append(millis)
            return connections


class Relay:
    """Takes connections and passes on what comes in either direction, with handovers in between. Their places are
    random, as `seed` has it; one at least is behind the handshake of each connection."""

    def __init__(self, address, handovers, seed):
        host, port = address.rsplit(":", 1)
        self.target = (host, int(port))
        self.handovers, self.seed = handovers, seed
        self.connections = 0
        # The numbers of those that were there in a handover of theirs.
        self.handed_over = set()
        self.problems = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listener.getsockname())

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        # Closing it alone wakes nobody.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self.target)
                for name, source, sink in (("up", client, server), ("down", server, client)):
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    dice = random.Random(f"{self.seed} {self.connections} {name}")
                    arguments = (source, sink, name, self.connections, dice)
                    threading.Thread(target=self._pass_on, args=arguments, daemon=True).start()
                self.connections += 1

    def _pass_on(self, source, sink, name, connection, dice):
        number = 0
        # One end may be gone before the other has said all.
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK_BYTES):
                between = FIRST_CHUNKS_BETWEEN if number < FIRST_CHUNKS else LATER_CHUNKS_BETWEEN
                is_first_message = name == "up" and number == 1
                if is_first_message or dice.randrange(between) == 0:
                    cut = dice.randrange(len(chunk) + 1)
                    sink.sendall(chunk[:cut])
                    self._interrupt(connection)
                    chunk = chunk[cut:]
                sink.sendall(chunk)
                number += 1
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            # One end takes nothing any more. The other may still write, and mustn't wait for ever.
            while source.recv(CHUNK_BYTES):
                pass

    def _interrupt(self, connection):
        # After the first problem the cases go on without: it is told when they are through.
        if self.problems:
            return
        try:
            if self.handovers.cause():
                self.handed_over.add(connection)
        except harness.Failure as failure:
            self.problems.append(str(failure))
