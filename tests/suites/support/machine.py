"""A machine for the time of a test: the host's systemd in namespaces (boot, beside this file), and programs that
subscribe and publish there.

Python 3.11, standard library only. A module, nothing to run. It takes root and what `is_possible` asks for.
"""

import contextlib
import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import harness
from receipts import ID

SYSTEMD = "/lib/systemd/systemd"
URL = "ws://127.0.0.1:8000/"
SECONDS_MAX = 30
# Of a test that fails.
LOG_LINES_MAX = 100


def is_possible():
    """Whether a machine can be made here; else says why not."""
    tools = ("unshare", "nsenter", "systemctl", "ip")
    if os.geteuid() != 0 or not Path(SYSTEMD).exists() or not all(map(shutil.which, tools)):
        print("skipped: it takes root, systemd and iproute2")
        return False
    if subprocess.run(["unshare", "--mount", "--pid", "--fork", "--net", "true"], stderr=subprocess.DEVNULL).returncode:
        print("skipped: no namespaces can be made here")
        return False
    return True


class Machine:
    """A systemd that has booted in a root that `boot` makes of `what`. While it lasts, this thread and those that it
    starts are in its network."""

    def __init__(self, folder, *what):
        self.folder, self.what = folder, what

    def __enter__(self):
        target = self.folder / "root"
        target.mkdir()
        with contextlib.ExitStack() as undo:
            cgroups = Cgroups(f"crieur-{os.getpid()}")
            undo.callback(cgroups.remove)
            self.unshare = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--uts", "--ipc", "--net", "--cgroup", "--kill-child",
                 Path(__file__).with_name("boot"), target, *self.what],
                stdin=subprocess.DEVNULL, stdout=sys.stderr, preexec_fn=cgroups.enter,
            )
            undo.callback(self.stop)
            self.pid = int(self.wait_for(lambda: self.children(self.unshare.pid)).split()[0])
            self.wait_for(lambda: Path(f"/proc/{self.pid}/exe").resolve().name == "systemd")
            self.root = Path(f"/proc/{self.pid}/root")
            self.network = open("/proc/thread-self/ns/net")
            undo.callback(self.leave_network)
            with open(f"/proc/{self.pid}/ns/net") as network:
                set_network(network)
            self.wait_for(lambda: self.systemctl("is-active", "basic.target", check=False) == "active\n")
            self.undo = undo.pop_all()
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            print(*self.log().splitlines()[-LOG_LINES_MAX:], sep="\n", file=sys.stderr)
        self.undo.close()

    def leave_network(self):
        set_network(self.network)
        self.network.close()

    def stop(self):
        # The first process of a PID namespace takes all others along.
        self.unshare.kill()
        self.unshare.wait()

    @staticmethod
    def children(pid):
        return Path(f"/proc/{pid}/task/{pid}/children").read_text()

    def command(self, *words):
        return ["nsenter", "-t", str(self.pid), "-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w", "--", *words]

    def inside(self, *command, check=True):
        return subprocess.run(
            self.command(*command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=None if check else subprocess.DEVNULL, text=True, timeout=SECONDS_MAX, check=check,
        ).stdout

    def systemctl(self, *arguments, check=True):
        return self.inside("systemctl", *arguments, check=check)

    def show(self, name, unit="crieur.service"):
        return self.systemctl("show", "--value", "-p", name, unit).strip()

    def main_pid(self, unit="crieur.service"):
        return int(self.show("MainPID", unit))

    def of_machine(self, pid):
        """The number that a process of the namespace has outside of it."""
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                numbers = re.search(r"^NSpid:\s+(.*)$", status.read_text(), re.MULTILINE)[1].split()
                # Where another file has taken its place: `crieur (deleted)`.
                program = os.path.basename(os.readlink(status.with_name("exe")))
                if numbers[1:] == [str(pid)] and program.startswith("crieur"):
                    return int(numbers[0])
        raise harness.Failure(f"there is no process {pid} inside")

    def log(self):
        return self.inside("journalctl", "--no-pager", "-u", "crieur.service")

    def wait_for(self, is_there):
        return wait_for(is_there, lambda: "the machine")


def set_network(namespace):
    if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0) != 0:
        raise harness.Failure(f"setns: {os.strerror(ctypes.get_errno())}")


class Cgroups:
    """A group of its own in each hierarchy that systemd uses, gone with it."""

    def __init__(self, name):
        top = Path("/sys/fs/cgroup")
        self.folders = [top / name] if (top / "cgroup.procs").exists() else [top / "systemd" / name]
        for folder in self.folders:
            folder.mkdir()

    def enter(self):
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(os.getpid()))

    def remove(self):
        for folder in self.folders:
            for below, _, _ in os.walk(folder, topdown=False):
                wait_for(lambda: remove_folder(below), lambda: f"{below} is busy")


def remove_folder(folder):
    with contextlib.suppress(OSError):
        os.rmdir(folder)
        return True


class Subscriber:
    """`crieur subscribe` by the program at a path, with what it says."""

    def __init__(self, program, *options):
        self.program, self.options = program, options

    def __enter__(self):
        self.process = subprocess.Popen(
            [self.program, "subscribe", "--url", URL, *self.options, "c"], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        self.said = {"stdout": "", "stderr": ""}
        for name in self.said:
            threading.Thread(target=self.listen, args=(name,), daemon=True).start()
        self.wait_for("subscribed", "stderr")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def listen(self, name):
        for line in getattr(self.process, name):
            self.said[name] += line

    def numbers(self):
        """Of the notifications that came; each has an id, if the client asks for these."""
        came = [json.loads(line) for line in self.said["stdout"].splitlines(keepends=True) if line.endswith("\n")]
        assert not self.options or all(re.fullmatch(ID, message["id"]) for message in came), came
        return [message["notification"]["number"] for message in came]

    def wait_for(self, text, name="stdout"):
        wait_for(lambda: text in self.said[name], lambda: self.said)


class Publishing:
    """Publishes 0, 1, 2 and so on while it lasts, by a function that takes the number."""

    def __init__(self, publish):
        self.publish, self.count, self.failure = publish, 0, None
        self.has_ended = threading.Event()
        self.thread = threading.Thread(target=self.go_on)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.has_ended.set()
        self.thread.join()
        if self.failure:
            raise self.failure

    def go_on(self):
        try:
            while not self.has_ended.is_set():
                self.publish(self.count)
                self.count += 1
                time.sleep(0.001)
        except Exception as failure:
            self.failure = failure

    def wait_for_more(self):
        before = self.count
        wait_for(lambda: self.failure or self.count > before + 20, lambda: f"{self.count} are published")


def wait_for(is_there, what):
    until = time.monotonic() + SECONDS_MAX
    while time.monotonic() < until:
        if found := is_there():
            return found
        time.sleep(0.02)
    raise harness.Failure(f"waited in vain: {what()}")
