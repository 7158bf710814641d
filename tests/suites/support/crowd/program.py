"""The server as a process: started, stopped, killed, and looked at from outside."""

import contextlib
import fcntl
import os
import re
import resource
import signal
import subprocess
import time
from pathlib import Path

import harness

from .loop import Stream

_LISTENING = re.compile(r"listening( for publishers)? on (\S+:\d+)")
PIPE_BYTES = 4096


def binary():
    """The server that is tried; CRIEUR names another one than the one that was built."""
    return os.environ.get("CRIEUR") or harness.target_dir() / "release" / "crieur"


class Program:
    """Runs on a port that it finds free, and again on the same one."""

    def __init__(self, *flags, log, is_log_stuck=False, descriptors=None, file_bytes=None):
        self.flags, self.log, self.is_log_stuck = [str(flag) for flag in flags], Path(log), is_log_stuck
        self._descriptors, self._file_bytes = descriptors, file_bytes
        self.address = None
        self.publish_address = None
        self.has_publish_address = "--publish-listen" in self.flags
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        self.process = None
        # For showing that what somebody else does to its files would be found.
        self.before_start = lambda: None
        self.start()

    def start(self):
        self.before_start()
        if self.is_log_stuck:
            self._spawn(subprocess.PIPE)
            fcntl.fcntl(self.process.stderr, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            lines = iter(lambda: self.process.stderr.readline().decode(), "")
            self._find_addresses(lines)
            return
        with self.log.open("ab") as log:
            begun = log.tell()
            self._spawn(log)
        self._find_addresses(self._follow(begun))

    def start_to_die(self, seconds):
        """Starts, and is killed after so long, however far it has come."""
        with self.log.open("ab") as log:
            self._spawn(log)
        time.sleep(seconds)
        self.kill()

    def _spawn(self, stderr):
        listen = "127.0.0.1:%d" % (self.address[1] if self.address else 0)
        command = [binary(), "--listen", listen, *self.flags]
        limits = {"nofile": self._descriptors, "fsize": self._file_bytes}
        limits = [f"--{name}={value}:{value}" for name, value in limits.items() if value is not None]
        if limits:
            command = ["prlimit", *limits, *command]
        # Python ignores SIGXFSZ, and so does what it starts then: writing beyond the limit fails, and doesn't kill.
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
            restore_signals=self._file_bytes is None,
        )

    def _follow(self, position):
        deadline = time.monotonic() + harness.LISTENING_SECONDS_MAX
        with self.log.open() as log:
            log.seek(position)
            while time.monotonic() < deadline and self.process.poll() is None:
                if line := log.readline():
                    yield line
                else:
                    time.sleep(0.01)

    def _find_addresses(self, lines):
        clients = publishers = None
        for line in lines:
            if not (found := _LISTENING.search(line)):
                continue
            host, port = found[2].rsplit(":", 1)
            if found[1]:
                publishers = (host, int(port))
            else:
                clients = (host, int(port))
            if clients and (publishers or not self.has_publish_address):
                self.address, self.publish_address = clients, publishers or clients
                return
        raise harness.Failure(f"the server does not listen, see {self.log}")

    # What is done to it.

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self, loop):
        """SIGTERM, while clients go on."""
        self.process.terminate()
        loop.until(lambda: self.process.poll() is not None, "the server has stopped")

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def limit_descriptors(self, count):
        """As long as it runs, what is open stays open."""
        resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (count, count))

    def expect_alive(self):
        if (status := self.process.poll()) is not None:
            raise harness.Failure(f"the server has exited with {status}, see {self.log}")

    def end(self):
        """It has to be there still, and to end well."""
        self.expect_alive()
        self.process.terminate()
        try:
            status = self.process.wait(harness.STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            raise harness.Failure("the server does not stop at SIGTERM") from None
        if status != 0:
            raise harness.Failure(f"the server has ended with {status}, see {self.log}")

    def clean_up(self):
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()

    # What it looks like.

    def memory_kib(self):
        """RssAnon, which a process that has just exited hasn't any more."""
        found = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())
        return int(found[1]) if found else 0

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def state(self):
        """R, S, T, …"""
        return Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


class Figures(Stream):
    """The server's own figures, by GET /metrics; `then` gets them."""

    def __init__(self, loop, address, then):
        self._data = []
        self._then = then
        self.dial(loop, address)

    def on_connected(self):
        self.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")

    def on_data(self, data):
        self._data.append(data)

    def on_end(self, error):
        _, _, body = b"".join(self._data).partition(b"\r\n\r\n")
        lines = [line.rsplit(" ", 1) for line in body.decode().splitlines() if line and line[0] != "#"]
        self._then({name: float(value) for name, value in lines})


def figures(loop, address):
    """The same, waited for."""
    found = []
    Figures(loop, address, found.append)
    loop.until(lambda: found, "the server's figures")
    return found[0]
