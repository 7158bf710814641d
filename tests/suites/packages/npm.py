"""The npm package of the client: its metadata and types are right, and projects can use it.

A project is made anew in an empty folder with the commands that its users type; what is written for it is in
npm-projects/NAME. Chromium is installed from Debian where it is missing (CHROMIUM names another one).
"""

import contextlib
import functools
import http.server
import json
import os
import queue
import re
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import harness

PROJECTS = Path(__file__).resolve().parent / "npm-projects"
LOGS = harness.target_dir() / "packages" / "npm-logs"
SECONDS_MAX = 300
SECONDS_MAX_OF_PAGE = 60
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
TEXT = "Order 17 is paid"


def check(full):
    package = built()
    LOGS.mkdir(parents=True, exist_ok=True)
    lint(package)
    harness.cargo_build("--bin", "crieur")
    program = harness.target_dir() / "release" / "crieur"
    projects = [node, *((jest, jest_react, typescript, vite, metro) if full else ())]
    with (
        tempfile.TemporaryDirectory(prefix="crieur-npm-") as folder,
        # The pages of Vite and of jsdom come from elsewhere.
        harness.server([program, "--listen", "127.0.0.1:0", "--allow-origin", "*"], LOGS / "crieur.log") as address,
    ):
        for project in projects:
            project(Project(Path(folder), package, address))
    names = ", ".join(project.__name__.replace("_", " with ") for project in projects)
    return f"packages: npm: {package.name}, {package.stat().st_size / 1000:.0f} kB, no complaint of attw and publint; used by {names}"


def built():
    """The package, of the version that Cargo.toml says."""
    folder = harness.build_packages("npm")
    version = re.search(r'^version = "(.*)"$', (harness.ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    package = folder / f"crieur-client-{version}.tgz"
    if not package.exists():
        raise harness.Failure(f"{package} was not made, but {[file.name for file in folder.glob('*.tgz')]}")
    return package


def lint(package):
    """What tools say about its metadata, and about its types for each way to import it."""
    tools = harness.target_dir() / "packages" / "npm-tools"
    lock = tools / "package-lock.json"
    wanted = (PROJECTS / "tools" / lock.name).read_text()
    if not (tools / "node_modules").exists() or lock.read_text() != wanted:
        shutil.copytree(PROJECTS / "tools", tools, dirs_exist_ok=True)
        run(tools, "npm", "ci", "--silent")
    programs = tools / "node_modules" / ".bin"
    expect("No problems found", run(tools, programs / "attw", package, "--no-color"))
    # Mere suggestions don't make it fail.
    expect("All good!", run(tools, programs / "publint", "--strict", package))


class Project:
    """A new project with the package."""

    def __init__(self, folder, package, address):
        self.parent, self.package, self.address = folder, package, address
        self.folder = folder

    def create(self, name, *packages):
        self.make(name)
        self.run("npm", "init", "--yes")
        self.install(*packages)

    def make(self, name):
        self.folder = self.parent / name
        self.folder.mkdir()

    def install(self, *packages):
        self.run("npm", "install", "--no-audit", "--no-fund", self.package, *packages)
        shutil.copytree(PROJECTS / self.folder.name, self.folder, dirs_exist_ok=True)
        shutil.copy(PROJECTS / "receive.cjs", self.folder)

    def run(self, *command):
        return run(self.folder, *command, environment={"ADDRESS": self.address})


def node(project):
    project.create("node", "ws@8.23.0")
    for file in ("require.cjs", "import.mjs"):
        same(project.run("node", file), f"{TEXT} code\n")


def jest(project):
    project.create("jest", "jest@30.5.2", "ws@8.23.0")
    expect("Tests:       1 passed, 1 total", project.run("npx", "jest"))


def jest_react(project):
    """With Babel, as Jest's documentation says; and the test of docs/recipes.md as it stands there."""
    project.create(
        "jest-react", "jest@30.5.2", "jest-environment-jsdom@30.5.2", "@babel/preset-env@7.29.14", "@babel/preset-react@7.29.7",
        "@testing-library/react@16.3.3", "@testing-library/dom@10.4.2", "react@19.3.1", "react-dom@19.3.1", "ws@8.23.0",
    )
    recipes = (harness.ROOT / "docs" / "recipes.md").read_text()
    blocks = re.findall(r"^```jsx\n(.*?)^```$", recipes, re.MULTILINE | re.DOTALL)
    component, test = (next(block for block in blocks if word in block) for word in ("function News", "jest.mock("))
    (project.folder / "news.jsx").write_text(component)
    (project.folder / "news.test.jsx").write_text(f"/** @jest-environment jsdom */\n{test}")
    expect("Tests:       3 passed, 3 total", project.run("npx", "jest"))


def typescript(project):
    project.create("typescript", "typescript@7.0.2", "@types/node@20.19.19", "@types/ws@8.18.1", "ws@8.23.0")
    for extension in ("mts", "cts"):
        shutil.copy(project.folder / "use.ts", project.folder / f"use.{extension}")
    tsc = ("npx", "tsc", "--strict", "--target", "ES2022", "--types", "node")
    project.run(*tsc, "--module", "Node16", "--outDir", "out", "use.mts", "use.cts")
    for file in ("use.mjs", "use.cjs"):
        same(project.run("node", f"out/{file}"), "closed\n")
    project.run(*tsc, "--module", "ESNext", "--moduleResolution", "Bundler", "--noEmit", "use.ts")


def vite(project):
    """The template of Vite for React, built and shown by Chromium."""
    project.run("npm", "create", "--yes", "vite@9.3.0", "vite", "--", "--template", "react", "--no-interactive")
    project.folder /= "vite"
    project.install()
    (project.folder / "App.jsx").replace(project.folder / "src" / "App.jsx")
    project.run("npm", "run", "build")
    if shutil.which(CHROMIUM) is None:
        harness.install_debian_package("chromium")
    with pages(project.folder / "dist") as site, browser(f"{site}/?server=ws://{project.address}/") as said:
        wait_for('"subscribed"', said)
        publish(project.address)
        wait_for(f'"shown: {TEXT}"', said)


def metro(project):
    # The last ones for Node 20.
    project.create("metro", "metro@0.84.6", "@react-native/metro-config@0.85.3", "@react-native/babel-preset@0.85.3", "react@19.3.1")
    project.run("npx", "metro", "build", "index.js", "--platform", "android", "--dev", "false", "--out", "bundle.js")
    same(project.run("node", "bundle.js"), "closed function\n" * 2)


def run(folder, *command, environment=None):
    """What the command says, which is shown where it fails."""
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS_MAX,
    )
    if done.returncode != 0:
        words = " ".join(str(word) for word in command)
        raise harness.Failure(f"`{words}` exited with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def expect(text, said):
    if text not in said:
        raise harness.Failure(f"`{text}` was not said, but:\n{said[-4000:]}")


def same(said, wanted):
    if said != wanted:
        raise harness.Failure(f"{wanted!r} should have been said, not {said!r}")


@contextlib.contextmanager
def pages(folder):
    """Serves a folder; yields its URL."""
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@contextlib.contextmanager
def browser(url):
    """Shows a page in Chromium; yields the lines that it and the page say."""
    with tempfile.TemporaryDirectory(prefix="crieur-npm-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr",
             f"--user-data-dir={profile}", "--remote-debugging-port=0", url],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
        )
        lines = queue.Queue()

        def listen():
            for line in process.stderr:
                lines.put(line)
            lines.put(None)

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        try:
            yield lines
        finally:
            process.terminate()
            process.wait(SECONDS_MAX_OF_PAGE)
            listener.join()


def wait_for(text, lines):
    end, said = time.monotonic() + SECONDS_MAX_OF_PAGE, []
    with contextlib.suppress(queue.Empty):
        while (line := lines.get(timeout=max(0, end - time.monotonic()))) is not None:
            said.append(line)
            if text in line:
                return
    raise harness.Failure(f"the page did not say `{text}`:\n{''.join(said)[-4000:]}")


def publish(address):
    body = json.dumps({"notification": {"channel": "orders", "text": TEXT}}).encode()
    request = urllib.request.Request(f"http://{address}/publish", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=SECONDS_MAX_OF_PAGE).close()
