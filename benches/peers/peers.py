"""Where the peers are and how they are started, for the scripts beside this file.

Python 3.11, standard library only. A module, nothing to run.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "suites" / "support"))
import harness  # noqa: E402

SOCKETIFY = ("socketify==0.0.31", "cffi==2.1.1", "pycparser==3.12")

RUST = ("tokio-tungstenite", "fastwebsockets")
PEERS = (*RUST, "ws", "socketify")
# The last of them without its logic, which is no peer: it delivers nothing.
BARE = "socketify-bare"


def rust_target_dir():
    """Where cargo builds the package `rust`; its own profile and lock would evict the project's."""
    return harness.target_dir() / "bench-peers" / "rust"


def command(name):
    """What starts a peer, but for its `--listen HOST:PORT`."""
    if name in RUST:
        return [rust_target_dir() / "release" / name]
    if name == "ws":
        return ["node", HERE / "node" / "server.js"]
    python = harness.target_dir() / "venv" / "socketify" / "bin" / "python"
    return [python, "-B", HERE / "socketify" / "server.py", *(["--bare"] if name == BARE else [])]


def is_built(name):
    """Whether `build` has made it."""
    needed = HERE / "node" / "node_modules" / "ws" if name == "ws" else Path(command(name)[0])
    return needed.exists()


def build(name):
    """Builds or installs a peer; fast where that was done."""
    if name in RUST:
        subprocess.run(
            ["cargo", "build", "--release", "--locked", "--bin", name, "--manifest-path", HERE / "rust" / "Cargo.toml"],
            env={**os.environ, "CARGO_TARGET_DIR": str(rust_target_dir())},
            check=True,
        )
    elif name == "ws":
        _npm_ci(HERE / "node")
    else:
        python = harness.venv("socketify", *SOCKETIFY)
        loads = [python, "-c", "import socketify"]
        if subprocess.run(loads, stderr=subprocess.DEVNULL).returncode != 0:
            # uWebSockets' loop; the wheel doesn't bring it.
            harness.install_debian_package("libuv1")
            subprocess.run(loads, check=True)


def _npm_ci(folder):
    """`npm ci`, unless what is installed is what the lock asks for."""
    stamp, wanted = folder / "node_modules" / ".installed-lock.json", (folder / "package-lock.json").read_text()
    if not (stamp.exists() and stamp.read_text() == wanted):
        subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=True)
        stamp.write_text(wanted)
