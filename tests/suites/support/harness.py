"""What the suites share: where things are built, virtual environments of Python, missing Debian
packages, and a server for the time of a test.

Python 3.11, standard library only. A module, nothing to run.
"""

import contextlib
import json
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LISTENING_SECONDS_MAX = 10
STOP_SECONDS_MAX = 10


class Failure(Exception):
    """The test has failed; the text says how."""


def main(run):
    """Runs `run`, with one line instead of a traceback for a `Failure`, and its exit status."""
    # As an exception, a termination leaves every `with` and takes the processes along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    sys.stdout.reconfigure(line_buffering=True)
    try:
        run()
    except Failure as failure:
        sys.exit(f"FAILED: {failure}")
    except subprocess.TimeoutExpired as late:
        sys.exit(f"FAILED: `{_words(late)}` was not done after {late.timeout:.0f} s")
    except subprocess.CalledProcessError as error:
        sys.exit(f"FAILED: `{_words(error)}` exited with {error.returncode}")


def _words(error):
    return shlex.join(str(word) for word in error.cmd)


def target_dir():
    """Where cargo builds, and where everything goes that a test makes or installs."""
    return ROOT / os.environ.get("CARGO_TARGET_DIR", "target")


def cargo_build(*arguments):
    """Builds in release mode."""
    command = ["cargo", "build", "--release", "--locked", *arguments]
    subprocess.run(command, cwd=ROOT, check=True)


def build_packages(part):
    """Builds a part of what people install; the folder where it is."""
    subprocess.run([ROOT / ".ci" / "packages", part], stdout=sys.stderr, check=True)
    return target_dir() / "packages"


def build_packages(part):
    """Builds a part of what people install; the folder where it is."""
    subprocess.run([ROOT / ".ci" / "packages", part], stdout=sys.stderr, check=True)
    return target_dir() / "packages"


def venv(name, *requirements):
    """The python of a virtual environment under target/ that has `requirements`."""
    folder = target_dir() / "venv" / name
    stamp, wanted = folder / "requirements.json", json.dumps(requirements)
    python = folder / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    create = [sys.executable, "-m", "venv", str(folder)]
    if subprocess.run(create, stdout=subprocess.DEVNULL).returncode != 0:
        # Debian keeps what `venv` needs in a package of its own.
        install_debian_package("python3-venv")
        subprocess.run(create, check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*pip, *requirements], check=True)
    stamp.write_text(wanted)
    return python


def install_debian_package(package, *options):
    """Installs what the machine lacks; with options of apt-get."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise Failure(f"{package} is missing; install it and run this again")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "-q", "update"], ["apt-get", "-q", "install", "-y", *options, package]):
        subprocess.run(command, env=environment, check=True)


@contextlib.contextmanager
def server(command, log):
    """Starts a server that says `listening on HOST:PORT` on stdout or stderr, yields
    HOST:PORT, and stops it. All that it says goes to the file `log`."""
    with running(command, log) as (address, _):
        yield address


@contextlib.contextmanager
def running(command, log, hear=lambda line: None):
    """The same, with the process; each line that it says goes to `hear` too, in another thread."""
    log.parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace",
    )
    addresses = queue.Queue()
    reader = threading.Thread(target=_keep_log, args=(process.stdout, log, addresses, hear), daemon=True)
    reader.start()
    try:
        try:
            address = addresses.get(timeout=LISTENING_SECONDS_MAX)
        except queue.Empty:
            address = None
        if address is None:
            raise Failure(f"{command[0]} did not say where it listens, see {log}:\n{_tail(log)}")
        yield address, process
        if process.poll() is not None:
            raise Failure(f"{command[0]} exited with {process.returncode}, see {log}:\n{_tail(log)}")
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(STOP_SECONDS_MAX)


def _keep_log(output, log, addresses, hear):
    with log.open("w") as kept:
        for line in output:
            kept.write(line)
            kept.flush()
            hear(line)
            if found := re.search(r"listening on (\S+:\d+)", line):
                addresses.put(found[1])
    addresses.put(None)


def _tail(log):
    return "\n".join(log.read_text().splitlines()[-20:])
