"""A Redis as a process: started, halted, killed, made a replica and a master by hand; and a client of it."""

import contextlib
import shutil
import signal
import socket
import subprocess
import time

import harness

STREAM = "crieur"
READY_SECONDS_MAX = 20


class RedisError(Exception):
    """Redis has answered with an error."""


class Database:
    """Listens on a port of its own, and on the same one when it is started again."""

    def __init__(self, name, *flags):
        self.folder = harness.target_dir() / "redis" / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._flags = [str(flag) for flag in flags]
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.process = None
        self.start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def start(self):
        command = [
            "redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no",
            "--repl-diskless-sync-delay", "0", "--dir", str(self.folder), *self._flags,
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + READY_SECONDS_MAX
        while True:
            # There is no event for it that doesn't depend on how its log is worded.
            with contextlib.suppress(OSError, RedisError):
                self.ask("PING")
                return
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise harness.Failure(f"a Redis does not start, see {self.folder}/log")
            time.sleep(0.005)

    def kill(self):
        self.process.kill()
        self.process.wait()

    clean_up = kill

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def ask(self, *words):
        """Its answer; a list of them for `MULTI … EXEC`."""
        return self.ask_all(words)[0]

    def ask_all(self, *commands):
        """Answers to commands that are sent at once."""
        with socket.create_connection(("127.0.0.1", self.port), READY_SECONDS_MAX) as connected:
            connected.sendall(b"".join(command(*words) for words in commands))
            with connected.makefile("rb") as answers:
                return [_good(read_reply(answers)) for _ in commands]

    def entries(self):
        """All of the stream: where each is, and its fields."""
        return [_entry(entry) for entry in self.ask("XRANGE", STREAM, "-", "+")]

    def entries_and(self, *words):
        """What is there when a command that takes it away is executed: nothing comes in between."""
        *_, (entries, answer) = self.ask_all(("MULTI",), ("XRANGE", STREAM, "-", "+"), words, ("EXEC",))
        _good(answer)
        return [_entry(entry) for entry in entries]

    def follow(self, master):
        """Becomes a replica of it, and is one when this returns."""
        self.ask("REPLICAOF", "127.0.0.1", master.port)
        self._wait_until(lambda: self.ask("ROLE")[3] == b"connected", "it is connected to its master")

    def have_all_of(self, master):
        """Waits until it has what its master has now."""
        offset = master.ask("ROLE")[1]
        self._wait_until(lambda: self.ask("ROLE")[4] >= offset, "it has what its master has")

    def lag(self):
        """Gets nothing more from its master, and stays a replica."""
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            port = nobody.getsockname()[1]
        self.ask("REPLICAOF", "127.0.0.1", port)

    def promote(self):
        self.ask("REPLICAOF", "NO", "ONE")

    def _wait_until(self, is_so, what):
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not is_so():
            if time.monotonic() > deadline:
                raise harness.Failure(f"a Redis: {what}: not in time")
            time.sleep(0.005)


def place(id):
    """Where an entry stands in its stream, of its id in Redis or on the wire."""
    millis, sequence, *_ = id.split("-")
    return int(millis), int(sequence)


def command(*words):
    """As Redis reads it."""
    encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


def read_reply(answers):
    """One reply of a file; an error as a `RedisError`, not raised."""
    line = answers.readline()
    if not line.endswith(b"\r\n"):
        raise OSError("Redis has closed the connection")
    kind, rest = line[:1], line[1:-2]
    if kind == b"+":
        return rest
    if kind == b"-":
        return RedisError(rest.decode())
    if kind == b":":
        return int(rest)
    if kind == b"$":
        if rest == b"-1":
            return None
        bulk = answers.read(int(rest) + 2)
        if len(bulk) < int(rest) + 2:
            raise OSError("Redis has closed the connection")
        return bulk[:-2]
    if kind == b"*":
        return None if rest == b"-1" else [read_reply(answers) for _ in range(int(rest))]
    raise RedisError(f"no reply: {line!r}")


def _good(reply):
    if isinstance(reply, RedisError):
        raise reply
    return reply


def _entry(entry):
    id, fields = entry
    return place(id.decode()), dict(zip(fields[::2], fields[1::2]))
