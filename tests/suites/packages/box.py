"""Shows that the image of docs/deploy/Dockerfile works, and the services of docs/deploy/compose.yaml.

Images can't be fetched here, so the Dockerfile's first stage isn't built in its image. Instead, all that its program was
compiled from must be among what the stage copies; with `--full`, the stage's own steps run in a folder with nothing else. The
second stage is built by buildah as it stands. Its root, user, variables, entry point and health check are then used as an
engine would use them. Compose checks its file. crieur and Debian's nginx run with the settings that are there: clients get
through, publishers don't, and the history outlives a container.

A part of `tests/suites/packages/run`. Needs Debian's buildah, docker-compose and nginx; logs are in target/box.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import harness

DEPLOY = harness.ROOT / "docs" / "deploy"
DOCKERFILE = DEPLOY / "Dockerfile"
FOLDER = harness.target_dir() / "box"
PATH = os.environ.get("PATH", "") + ":/usr/sbin"
PROGRAMS = ("buildah", "docker-compose", "nginx")
BUILD_IMAGE = "localhost/crieur-build"
NOTIFICATION = '{"channel":"boxed"}'
SECONDS_MAX = 10
COMPILE_SECONDS_MAX = 1800


def check(full):
    began = time.monotonic()
    for program in PROGRAMS:
        if shutil.which(program, path=PATH) is None:
            # Compose would bring an engine, which would be started.
            harness.install_debian_package(program, "--no-install-recommends")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    stages = read_dockerfile()
    program = build_program()
    sources = copy_sources(stages[0])
    if full:
        program = run_steps(stages[0], sources)
    else:
        check_sources(program, sources)
    compose = read_compose()
    with contextlib.ExitStack() as cleaning:
        image = Image(program, cleaning)
        check_image(image)
        check_health(image)
        check_services(image, compose)
    how = "built by the steps of its first stage" if full else "all sources are in its first stage"
    return f"packages: box: image and services passed, {how}, in {time.monotonic() - began:.0f} s"


def read_dockerfile():
    """The stages, each of which is a list of instructions and what follows them."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line and not line.startswith("#")]
    stages = []
    for line in "\n".join(lines).replace("\\\n", "").splitlines():
        instruction, rest = line.split(maxsplit=1)
        if instruction == "FROM":
            stages.append([])
        stages[-1].append((instruction, rest))
    if len(stages) != 2 or not stages[0][0][1].endswith(" AS build") or stages[1][0][1] != "scratch":
        raise harness.Failure(f"{DOCKERFILE} has other stages than `… AS build` and `scratch`")
    return stages


def build_program():
    """The static program, which `.ci/static` makes of the sources, if it isn't there yet."""
    ended = subprocess.run(
        [".ci/static"], cwd=harness.ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=COMPILE_SECONDS_MAX,
    )
    found = re.search(r"^static: .*: (/.*)$", ended.stdout, re.MULTILINE)
    if found is None:
        raise harness.Failure(f".ci/static:\n{ended.stdout}{ended.stderr}")
    return Path(found[1])


def copy_sources(stage):
    """A folder with what the first stage copies."""
    folder = FOLDER / "sources"
    for instruction, rest in stage:
        if instruction != "COPY":
            continue
        *names, to = shlex.split(rest)
        for found in (path for name in names for path in harness.ROOT.glob(name)):
            if found.is_dir():
                shutil.copytree(found, folder / to)
            else:
                (folder / to).mkdir(parents=True, exist_ok=True)
                shutil.copy(found, folder / to)
    return folder


def check_sources(program, sources):
    """That all that the program was compiled from is in the folder, and that cargo has all that it needs there."""
    compiled_from = program.with_name("crieur.d").read_text().split(": ", 1)[1].split()
    if not any(name.endswith("src/main.rs") for name in compiled_from):
        raise harness.Failure(f"{program}.d doesn't say what the program was compiled from")
    for name in compiled_from:
        if not (sources / os.path.relpath(name, harness.ROOT)).exists():
            raise harness.Failure(f"the Dockerfile's first stage doesn't copy {name}")
    # As strict about the manifest as a build is.
    subprocess.run(["cargo", "fetch", "--quiet", "--locked"], cwd=sources, check=True)


def run_steps(stage, sources):
    """Runs what the first stage runs, in that folder; returns the program that its second stage copies."""
    environment = {name: value for name, value in os.environ.items() if name != "CARGO_TARGET_DIR"}
    with (FOLDER / "steps.log").open("w") as log:
        for instruction, rest in stage:
            if instruction == "RUN":
                subprocess.run(
                    ["sh", "-c", rest], cwd=sources, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    timeout=COMPILE_SECONDS_MAX, check=True,
                )
    return sources / "crieur"


def read_compose():
    """The services as Compose understands them."""
    text = subprocess.run(
        ["docker-compose", "-f", DEPLOY / "compose.yaml", "config"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True,
    ).stdout
    # Debian's Python has the YAML that its docker-compose needs.
    convert = ["/usr/bin/python3", "-c", "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)"]
    return json.loads(subprocess.run(convert, input=text, stdout=subprocess.PIPE, check=True).stdout)


class Image:
    """The second stage, built by buildah; and containers of it."""

    def __init__(self, program, cleaning):
        # For commands on this host.
        self.program = program
        storage = FOLDER / "storage"
        self.buildah = ["buildah", "--storage-driver", "vfs", "--root", storage, "--runroot", FOLDER / "runroot"]
        built = self.ask("from", "scratch")
        self.ask("copy", built, program, "/crieur/crieur")
        (FOLDER / "empty").mkdir()
        self.ask("copy", built, FOLDER / "empty", "/crieur/empty")
        licences = FOLDER / "third-party-licenses"
        licences.write_bytes(subprocess.run([DEPLOY / "debian/licences"], cwd=harness.ROOT, stdout=subprocess.PIPE, check=True).stdout)
        self.ask("copy", built, licences, "/crieur/third-party-licenses")
        self.ask("commit", "--quiet", built, BUILD_IMAGE)
        text = DOCKERFILE.read_text()
        stage = f"FROM {BUILD_IMAGE} AS build\n{text[text.index('FROM scratch'):]}"
        (FOLDER / "Dockerfile").write_text(stage)
        self.ask(
            "bud", "--quiet", "--isolation", "chroot", "--format", "docker", "--tag", "crieur", "--file", FOLDER / "Dockerfile",
            harness.ROOT,
        )
        self.config = json.loads(self.ask("inspect", "--type", "image", "crieur"))["Docker"]["config"]
        self.user = int(self.config["User"].split(":")[0])
        self.environment = dict(setting.split("=", 1) for setting in self.config["Env"])
        container = self.ask("from", "crieur")
        self.root = Path(self.ask("mount", container))
        cleaning.callback(self.ask, "umount", container)

    def ask(self, *words):
        command = [str(word) for word in [*self.buildah, *words]]
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if ended.returncode != 0:
            raise harness.Failure(f"{shlex.join(command)}:\n{ended.stderr}")
        return ended.stdout.strip()

    def command(self, words):
        """Runs words in a container, as the image's user."""
        return ["chroot", f"--userspec={self.config['User']}", self.root, *words]

    def enter(self, words, environment=None):
        """Runs them to their end."""
        return subprocess.run(
            self.command(words), env=environment or self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=SECONDS_MAX,
        )

    def start(self, log, environment, arguments=()):
        """A server, which listens on free ports instead of those that it is given; yields its process and what it says."""
        free = {name: re.sub(r":\d+$", ":0", value) if "LISTEN" in name else value for name, value in environment.items()}
        return Server(self.command([*self.config["Entrypoint"], *arguments]), {**self.environment, **free}, FOLDER / log)


class Server:
    """A process that is stopped when the block ends."""

    def __init__(self, command, environment, log):
        self.log = log
        with log.open("w") as said:
            self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop(signal.SIGKILL)

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(SECONDS_MAX)

    def port(self, words):
        """The one that it says that it listens on."""
        def found():
            if self.process.poll() is not None:
                raise harness.Failure(f"it did not start: {self.log.read_text()}")
            return re.search(rf"{words} [\d.]+:(\d+)", self.log.read_text())

        return int(wait_for(found, f"`{words}` in {self.log}")[1])


def wait_for(is_there, what):
    until = time.monotonic() + SECONDS_MAX
    while not (found := is_there()):
        if time.monotonic() > until:
            raise harness.Failure(f"{what}: not in {SECONDS_MAX} s")
        time.sleep(0.02)
    return found


def check_image(image):
    """That it has the program and the licences, nothing else, and what belongs to whom."""
    files = {str(path.relative_to(image.root)) for path in image.root.rglob("*") if not path.is_dir()}
    licences = {f"usr/share/doc/crieur/{name}" for name in ("LICENSE-MIT", "LICENSE-APACHE", "third-party-licenses")}
    if files != {"crieur"} | licences:
        raise harness.Failure(f"the image has {files}")
    owners = {name: (image.root / name).stat().st_uid for name in ("crieur", "var/lib/crieur")}
    if owners != {"crieur": 0, "var/lib/crieur": image.user}:
        raise harness.Failure(f"these own the image's files: {owners}")
    version = image.enter(["/crieur", "--version"]).stdout.split()[-1]
    label = image.config["Labels"]["org.opencontainers.image.version"]
    if label != version:
        raise harness.Failure(f"the program is {version}, and the image's label says {label}")


def check_health(image):
    """That the health check says what is so, and that an argument leaves the image's address in force."""
    kind, *check = image.config["Healthcheck"]["Test"]
    if kind != "CMD":
        raise harness.Failure(f"without a shell there is no {kind} for the health check")
    with image.start("image.log", image.environment, ["--max-connections", "5"]) as server:
        port = server.port("listening on")
        log = server.log.read_text()
        if " listening on 0.0.0.0:" not in log or "at most 5 connections" not in log:
            raise harness.Failure(f"an argument changed more than it says, see {server.log}")
        environment = {**image.environment, "CRIEUR_URL": f"ws://127.0.0.1:{port}/"}
        well = image.enter(check, environment)
        if (well.returncode, well.stdout) != (0, "ok\n"):
            raise harness.Failure(f"the server runs, and the health check says {well}")
        if server.stop() != 0:
            raise harness.Failure(f"a stop was none, see {server.log}")
        ill = image.enter(check, environment)
        if ill.returncode != 1:
            raise harness.Failure(f"the server is gone, and the health check says {ill}")


def check_services(image, compose):
    """That clients get through nginx and nothing else does, that publishers have their own way, and that the history stays."""
    service = compose["services"]["crieur"]
    if "ports" in service or [str(port["target"]) for port in compose["services"]["nginx"]["ports"]] != ["80"]:
        raise harness.Failure("compose.yaml: the host must have a port that leads to nginx, and no other")
    address = compose["services"]["nginx"]["networks"]["default"]["ipv4_address"]
    if service["environment"]["CRIEUR_TRUSTED_PROXY"] != address:
        raise harness.Failure("compose.yaml: crieur trusts another proxy than nginx")
    if f"history:{service['environment']['CRIEUR_HISTORY_DIRECTORY']}:rw" not in service["volumes"]:
        raise harness.Failure("compose.yaml: the history isn't on its volume")
    tokens = make_secrets(image, compose)
    token = tokens["client"].read_text().strip()
    # The proxy is on this host here.
    environment = {**service["environment"], "CRIEUR_TRUSTED_PROXY": "127.0.0.1"}
    with image.start("crieur.log", environment) as crieur, Nginx(crieur.port("listening on")) as nginx:
        publish_port = crieur.port("listening for publishers on")
        first = publish(image, publish_port, tokens["publish"])
        with subscriber(image, nginx, token) as subscribed:
            wait_for(lambda: publish(image, publish_port, tokens["publish"])["delivered"] == 1, "a delivery through nginx")
            expect(subscribed)
        check_refusals(image, nginx, tokens, publish_port)
        if crieur.stop() != 0:
            raise harness.Failure(f"a stop was none, see {crieur.log}")
    # As in a new container, with the volume of the old one.
    with image.start("crieur-again.log", environment) as crieur, Nginx(crieur.port("listening on")) as nginx:
        with subscriber(image, nginx, token, "--since", first["id"]) as subscribed:
            expect(subscribed)
    logs = {log: log.read_text() for log in [*FOLDER.glob("*.log"), *(FOLDER / "nginx").glob("*.log")]}
    for log, text in logs.items():
        if token in text:
            raise harness.Failure(f"{log} has a token")
    if not any('"GET /ws" 101' in text for text in logs.values()):
        raise harness.Failure(f"no log in {FOLDER}/nginx has the request of a client")


def expect(subscribed):
    line = subscribed.stdout.readline()
    if NOTIFICATION not in line:
        raise harness.Failure(f"the subscriber got {line!r}")


def check_refusals(image, nginx, tokens, publish_port):
    """That nothing of crieur but its WebSocket is to be had through nginx, and nobody publishes without the token."""
    for path in ("/", "/publish", "/metrics", "/healthz", "/crieur.js", "/wscrieur.js"):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{nginx.port}{path}", timeout=SECONDS_MAX) as answer:
                raise harness.Failure(f"nginx answers {answer.status} to {path}")
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise harness.Failure(f"nginx answers {error.code} to {path}") from error
    publish = [image.program, "publish", NOTIFICATION, "--url"]
    for words in (
        [f"ws://127.0.0.1:{nginx.port}/ws", "--token-file", tokens["publish"]],
        [f"http://127.0.0.1:{publish_port}/"],
        [f"http://127.0.0.1:{publish_port}/", "--token-file", tokens["client"]],
    ):
        ended = subprocess.run([*publish, *words], capture_output=True, text=True, timeout=SECONDS_MAX)
        if ended.returncode != 1 or ("forbidden" not in ended.stderr and "token" not in ended.stderr):
            raise harness.Failure(f"a publisher must be refused: {ended}")


def make_secrets(image, compose):
    """As compose.yaml says: with the program, owned by the image's user, where Compose mounts them."""
    secrets = FOLDER / "secrets"
    secrets.mkdir()
    for kind, name in (("publish", "publish.token"), ("client", "client.key")):
        subprocess.run([image.program, "keygen", kind, secrets / name], check=True, stdout=subprocess.DEVNULL)
    mounted = image.root / "run" / "secrets"
    mounted.mkdir(parents=True)
    for secret in compose["services"]["crieur"].get("secrets", []):
        file = Path(compose["secrets"][secret["source"]]["file"])
        into = mounted / secret["source"]
        shutil.copy(secrets / file.name, into)
        os.chown(into, image.user, image.user)
    token = secrets / "client.token"
    sign = [image.program, "token", "--key-file", secrets / "client.key", "--allow", "boxed", "--ttl", "1h"]
    with token.open("w") as signed:
        subprocess.run(sign, check=True, stdout=signed)
    token.chmod(0o600)
    return {"publish": secrets / "publish.token", "client": token}


def publish(image, port, token_file):
    url = f"http://127.0.0.1:{port}/"
    command = [image.program, "publish", "--url", url, "--token-file", token_file, NOTIFICATION]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=SECONDS_MAX).stdout)


@contextlib.contextmanager
def subscriber(image, nginx, token, *options):
    # As browsers show it, which can't set a field.
    url = f"ws://127.0.0.1:{nginx.port}/ws?token={token}"
    command = [image.program, "subscribe", "--url", url, *options, "boxed"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


class Nginx(Server):
    """Debian's, with the file of the compose file, in which addresses and folders are replaced."""

    def __init__(self, crieur_port):
        folder = FOLDER / "nginx"
        folder.mkdir(exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        # Debian has these for a server of its own.
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        scratch = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
        text = (DEPLOY / "nginx.conf").read_text()
        for old, new in (
            ("listen 80;", f"listen 127.0.0.1:{self.port};"),
            ("http://crieur:8000/", f"http://127.0.0.1:{crieur_port}/"),
            ("/var/log/nginx", str(folder)),
            ("http {\n", f"http {{\n{scratch}"),
        ):
            if old not in text:
                raise harness.Failure(f"nginx.conf has no {old}")
            text = text.replace(old, new)
        (folder / "nginx.conf").write_text(f"user root;\npid {folder}/pid;\ndaemon off;\n{text}")
        command = ["nginx", "-c", folder / "nginx.conf", "-e", folder / "error.log"]
        super().__init__(command, {**os.environ, "PATH": PATH}, folder / "stderr.log")
        wait_for(self.is_open, "nginx listens")

    def is_open(self):
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", self.port)) == 0
