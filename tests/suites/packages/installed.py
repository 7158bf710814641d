"""The Debian package on a system that has booted: installed, used, upgraded, removed and purged, by apt-get."""

import json
import re
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import harness
from machine import Machine, Publishing, Subscriber, wait_for

APT_SECONDS_MAX = 120
# Tenths, as systemd-analyze counts them.
EXPOSURE_MAX = 11
UNITS = Path("/lib/systemd/system")
ADDRESS = "127.0.0.1:8000"
NOTIFICATION = '{"channel":"c","number":0}'
# What tools for users write, and systemd at its first start.
OTHERS = re.compile(r"etc/((passwd|group|shadow|gshadow|subuid|subgid)-?|\.pwd\.lock|ld\.so\.cache|machine-id)")
# A version that can't take over.
OTHER_PROGRAM = b"""#!/bin/bash
if [[ -n ${CRIEUR_HANDOVER:-} ]]; then
    echo 'crieur: there is no setting CRIEUR_HANDOVER' >&2
    exit 2
fi
exec -a "$0" /usr/bin/crieur.real "$@"
"""


def check(folder, deb, system, program):
    """`program` is the package's, for a client from outside."""
    with Debian(folder, system, program) as machine:
        before = machine.state()
        machine.install(deb)
        runs(machine)
        is_used(machine)
        has_secrets(machine)
        listens_elsewhere(machine)
        is_upgraded(machine, repack(deb, folder, "0.1.1-1"))
        stays(machine, repack(deb, folder, "0.1.2-1"))
        is_restarted(machine, repack(deb, folder, "0.1.3-1", OTHER_PROGRAM))
        is_left_alone(machine, repack(deb, folder, "0.1.4-1"))
        if (machine.root / "usr/bin/redis-server").exists():
            has_instances(machine, repack(deb, folder, "0.1.5-1"))
        is_removed(machine)
        is_purged(machine, before)
        # Nothing of the first time is in its way.
        waits_for_address(machine, deb)
        runs(machine)


class Debian(Machine):
    """A copy of a system in memory."""

    def __init__(self, folder, system, program):
        super().__init__(folder, "copy", system)
        self.program = program

    def apt(self, *arguments):
        command = self.command(
            "env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "apt-get", "-y", "-q", "-o", "Dpkg::Use-Pty=0", *arguments)
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=APT_SECONDS_MAX)
        if done.returncode != 0:
            raise harness.Failure(f"apt-get {' '.join(arguments)}:\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def install(self, deb):
        (self.root / "tmp" / deb.name).write_bytes(deb.read_bytes())
        return self.apt("install", f"/tmp/{deb.name}")

    def state(self):
        """Every path that isn't as it is in the system below, and who the users are."""
        changes = self.root / "run/changes"
        paths = {str(path.relative_to(changes)) for path in changes.rglob("*")}
        names = ("passwd", "group", "shadow", "gshadow")
        users = {f"{name}: {line}" for name in names for line in (self.root / "etc" / name).read_text().splitlines()}
        return paths, users

    def shell(self, script):
        return self.inside("sh", "-euc", script)

    def subscriber(self):
        return Subscriber(self.program)

    def publish(self, number):
        """Until it is acknowledged, once."""
        body = f'{{"key":"{number}","notification":{{"channel":"c","number":{number}}}}}'.encode()
        request = urllib.request.Request(
            f"http://{ADDRESS}/publish", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as response:
            assert response.status == 200

    def runs_program(self, unit="crieur.service"):
        """Whether the server is the program that is at its path now."""
        process = Path(f"/proc/{self.of_machine(self.main_pid(unit))}/exe")
        return process.exists() and process.samefile(self.root / "usr/bin/crieur")

    def set(self, lines):
        settings = self.root / "etc/default/crieur"
        settings.write_text(settings.read_text() + lines)


def repack(deb, folder, version, program=None):
    """The same package with another version, and with another program if one is given; the real one is beside it then."""
    tree = folder / version
    subprocess.run(["dpkg-deb", "-R", deb, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*$", f"Version: {version}", control.read_text(), flags=re.MULTILINE))
    path = tree / "usr/bin/crieur"
    if program:
        path.rename(path.with_name("crieur.real"))
        path.write_bytes(program)
        path.chmod(0o755)
    made = folder / f"crieur_{version}.deb"
    subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "-b", tree, made], check=True, stdout=subprocess.DEVNULL)
    return made


def runs(machine):
    """The service runs and will at each boot, as its user, and no other host reaches it."""
    for unit in ("crieur.socket", "crieur.service"):
        assert machine.systemctl("is-active", unit) == "active\n"
        assert machine.systemctl("is-enabled", unit) == "enabled\n"
    units = [UNITS / name for name in ("crieur.service", "crieur.socket", "crieur@.service")]
    machine.inside("systemd-analyze", "verify", *units[:2], UNITS / "crieur@1.service")
    for unit in ("crieur.service", "crieur@1.service"):
        machine.inside("systemd-analyze", "security", f"--threshold={EXPOSURE_MAX}", unit)
    process = Path(f"/proc/{machine.of_machine(machine.main_pid())}")
    user = machine.inside("id", "-u", "crieur").strip()
    assert re.search(r"^Uid:\s+(\d+)", process.joinpath("status").read_text(), re.MULTILINE)[1] == user
    # This process is in the machine's network. Redis may be there.
    listening = subprocess.run(["ss", "-tlnH", "sport != :6379"], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert [line.split()[3] for line in listening.splitlines()] == [ADDRESS], listening
    assert machine.inside("stat", "-c", "%U:%G %a", "/var/lib/crieur").strip() == "crieur:crieur 700"


def waits_for_address(machine, deb):
    """Another program has it: the package is installed all the same, and the service can be started later."""
    with socket.create_server(("127.0.0.1", 8000)):
        machine.install(deb)
        assert machine.systemctl("is-active", "crieur.service", check=False) != "active\n"
    machine.systemctl("start", "crieur")


def is_used(machine):
    """By the commands of docs/operations.md."""
    assert re.fullmatch(r"crieur \S+\n", machine.inside("crieur", "--version"))
    with machine.subscriber() as subscriber:
        receipt = machine.inside("crieur", "publish", NOTIFICATION)
        assert json.loads(receipt)["delivered"] == 1, receipt
        subscriber.wait_for('"number":0')
    assert "CRIEUR SERVE" in machine.inside("man", "crieur")


def has_secrets(machine):
    """By the lines that are comments in /etc/default/crieur."""
    settings = (machine.root / "etc/default/crieur").read_text()
    commands = re.findall(r"^#     (umask .*|crieur .*|chgrp .*)$", settings, re.MULTILINE)
    assert len(commands) == 3, commands
    machine.shell("\n".join(commands))
    (line,) = re.findall(r"^#(CRIEUR_CLIENT_KEY_FILE=.*)$", settings, re.MULTILINE)
    machine.set(f"{line}\n")
    machine.systemctl("restart", "crieur")
    subscribe = [machine.program, "subscribe", "c"]
    refused = subprocess.run(["timeout", "5", *subscribe], capture_output=True, text=True).stderr
    assert "token-missing" in refused or "3000" in refused, refused
    machine.shell("umask 077; crieur token --key-file /etc/crieur/client.key --allow c > /tmp/client.token")
    token = machine.root / "tmp/client.token"
    with Subscriber(machine.program, "--token-file", str(token)) as subscriber:
        machine.publish(-1)
        subscriber.wait_for('"number":-1')
    (machine.root / "etc/default/crieur").write_text(settings)
    # The key stays, until the package has been purged.
    machine.systemctl("restart", "crieur")


def listens_elsewhere(machine):
    """As /etc/default/crieur says, and then where it did before."""
    settings = (machine.root / "etc/default/crieur").read_text()
    lines = re.findall(r"^#     (\[Socket\]|ListenStream=.*)$", settings, re.MULTILINE)
    assert len(lines) == 3, lines
    folder = machine.root / "etc/systemd/system/crieur.socket.d"
    folder.mkdir()
    folder.joinpath("override.conf").write_text("\n".join(lines) + "\n")
    commands = re.search(r"`(systemctl daemon-reload)` and\s+#?\s*`(systemctl restart [^`]*)`", settings.replace("\n#", "\n"))
    machine.shell("\n".join(commands.groups()))
    assert can_connect(8080) and not can_connect(8000)
    folder.joinpath("override.conf").unlink()
    folder.rmdir()
    machine.shell("\n".join(commands.groups()))
    assert can_connect(8000) and not can_connect(8080)


def can_connect(port):
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def is_upgraded(machine, deb):
    """With settings of its own, and a client that notices nothing."""
    machine.set("CRIEUR_MAX_CONNECTIONS=1000\n")
    machine.systemctl("restart", "crieur")
    pid = machine.main_pid()
    with machine.subscriber() as subscriber:
        with Publishing(machine.publish) as publishing:
            publishing.wait_for_more()
            said = machine.install(deb)
            publishing.wait_for_more()
        expected = list(range(publishing.count))
        wait_for(lambda: subscriber.numbers() == expected, lambda: subscriber.said)
        assert subscriber.said["stderr"].count("subscribed") == 1, subscriber.said
    assert (machine.main_pid(), machine.runs_program()) == (pid, True), said
    assert "took over from" in machine.log() and "is restarted" not in said, said
    assert "CRIEUR_MAX_CONNECTIONS=1000" in (machine.root / "etc/default/crieur").read_text()


def stays(machine, deb):
    """The new program refuses the settings: the old one goes on, and apt-get says so."""
    settings = (machine.root / "etc/default/crieur").read_text()
    machine.set("CRIEUR_MAX_CONECTIONS=1000\n")
    pid = machine.main_pid()
    with machine.subscriber() as subscriber:
        said = machine.install(deb)
        assert "crieur.service still runs the old program" in said, said
        assert (machine.main_pid(), machine.runs_program()) == (pid, False)
        machine.publish(-2)
        subscriber.wait_for('"number":-2')
        (machine.root / "etc/default/crieur").write_text(settings)
        machine.systemctl("reload", "crieur")
        wait_for(machine.runs_program, machine.log)
        assert subscriber.said["stderr"].count("subscribed") == 1, subscriber.said


def is_restarted(machine, deb):
    """The new program can't take over: the client comes back and misses nothing."""
    pid = machine.main_pid()
    with machine.subscriber() as subscriber:
        said = machine.install(deb)
        assert "crieur.service is restarted" in said and "the handover is refused" in machine.log(), said
        assert machine.main_pid() != pid and machine.show("ActiveState") == "active"
        wait_for(lambda: subscriber.said["stderr"].count("subscribed") == 2, lambda: subscriber.said)
        machine.publish(-3)
        subscriber.wait_for('"number":-3')


def is_left_alone(machine, deb):
    """The service runs another program than the package's."""
    pid = machine.main_pid()
    with machine.subscriber() as subscriber:
        said = machine.install(deb)
        assert (machine.main_pid(), "crieur.service" in said) == (pid, False), said
        machine.publish(-5)
        subscriber.wait_for('"number":-5')
        assert subscriber.said["stderr"].count("subscribed") == 1, subscriber.said


def has_instances(machine, deb):
    """Several processes, as docs/operations.md says; an upgrade is theirs too, and so is the removal that follows."""
    machine.inside("redis-server", "--daemonize", "yes", "--dir", "/tmp", "--save", "")
    section = (harness.ROOT / "docs/operations.md").read_text().split("\n### Debian package\n")[1].split("\n### ")[0]
    commands = re.findall(r"`(systemctl (?:disable|enable) [^`]*)`", section)
    assert len(commands) == 2, commands
    machine.shell("\n".join(commands))
    units = ("crieur@1.service", "crieur@2.service")
    before = [machine.main_pid(unit) for unit in units]
    with machine.subscriber() as subscriber:
        said = machine.install(deb)
        assert [machine.main_pid(unit) for unit in units] == before, said
        assert all(machine.runs_program(unit) for unit in units), said
        # A port of one process for publishers; either of them has the subscriber.
        machine.inside("crieur", "publish", "--url", "http://127.0.0.1:8101/", '{"channel":"c","number":-4}')
        subscriber.wait_for('"number":-4')
        assert subscriber.said["stderr"].count("subscribed") == 1, subscriber.said


def is_removed(machine):
    """It runs no more; what it was set to and what it knew stay."""
    machine.apt("remove", "crieur")
    assert not can_connect(8000)
    assert machine.systemctl("is-active", "crieur.service", check=False) != "active\n"
    assert not (machine.root / "usr/bin/crieur").exists()
    assert (machine.root / "etc/default/crieur").exists() and any((machine.root / "var/lib/crieur").iterdir())


def is_purged(machine, before):
    machine.apt("purge", "crieur")
    # The administrator's file stays. Its group is gone, and another may get the number.
    key = machine.root / "etc/crieur/client.key"
    assert key.stat().st_gid == 0, key.stat()
    key.unlink()
    key.parent.rmdir()
    paths, users = machine.state()
    left = {path for path in paths - before[0] if is_left(machine.root / path, path)} | (users ^ before[1])
    left |= {str(path) for path in (machine.root / "run").glob("crieur*")}
    if left:
        raise harness.Failure(f"purged, it leaves {sorted(left)}")


def is_left(file, path):
    """What other programs keep in /var isn't ours, nor is a page that man has set."""
    if "crieur" in path:
        return not path.startswith("var/cache/man/")
    return path.startswith(("etc/", "usr/")) and not OTHERS.fullmatch(path) and not file.is_dir()
