"""The Debian package: lintian finds nothing; its manual and its completions have what the program's help has; it is
installed, used, upgraded, removed and purged by apt-get on a system that systemd has booted.

That system is a copy of this machine, in memory and without a network; with --full it is also one that debootstrap
makes, with nothing else on it. Needs root and systemd for that, and apt-get for what is missing.
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import completions
import harness
import installed
import machine as machines

TOOLS = {"dh": "debhelper", "lintian": "lintian", "man": "man-db", "zsh": "zsh", "fish": "fish",
         "redis-server": "redis-server"}


def check(full):
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            harness.install_debian_package(package)
    (deb,) = harness.build_packages("deb").glob("crieur_*.deb")
    lint(deb)
    with tempfile.TemporaryDirectory(prefix="crieur-deb-") as folder:
        files = Path(folder) / "files"
        subprocess.run(["dpkg-deb", "-x", deb, files], check=True)
        helps = Helps(files / "usr/bin/crieur")
        options = check_manual(files / "usr/share/man/man1/crieur.1.gz", helps)
        completions.check(files, helps, Path(folder))
        steps = f"lintian, {options} options in the manual and in three shells"
        if not machines.is_possible():
            return f"packages: deb: {steps}; not installed"
        for name, system in [("host", Path("/"))] + ([("debian", debootstrap(deb))] if full else []):
            (Path(folder) / name).mkdir()
            installed.check(Path(folder) / name, deb, system, helps.program)
    return f"packages: deb: {steps}, installed, used, upgraded, removed, purged"


def lint(deb):
    """Nothing but what the package has overridden, with a reason."""
    command = ["lintian", "--fail-on", "error,warning", "--tag-display-limit", "0", deb]
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode != 0 or found.stdout:
        raise harness.Failure(f"lintian says:\n{found.stdout}{found.stderr}")


class Helps:
    """What the program says of its commands."""

    def __init__(self, program):
        self.program = program
        self.commands = re.findall(r"^  ([a-z]+)  +\S", self.ask("help"), re.MULTILINE)
        self.texts = {command: self.ask(command, "--help") for command in self.commands if command != "help"}

    def ask(self, *arguments):
        return subprocess.run([self.program, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout

    def entries(self, command):
        """Each option with its value, such as "--url URL", and what is said of it."""
        found = {}
        for line in self.texts[command].splitlines():
            if begins := re.fullmatch(r"  (--[a-z-]+(?: \S+)?)(?:  +(.*))?", line):
                entry = begins[1]
                found[entry] = begins[2] or ""
            elif line.startswith(" " * 12) and found:
                found[entry] += line
        return found

    def options(self, command):
        return {entry.split()[0] for entry in self.entries(command)}


def check_manual(page, helps):
    """The number of its options: in the section of a command are those of its help, with the same words, and no others."""
    environment = {"LC_ALL": "C.UTF-8", "MANWIDTH": "500", "PATH": "/usr/bin:/bin"}
    command = ["man", "--warnings", "--encoding=UTF-8", "-l", page]
    rendered = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    if rendered.stderr:
        raise harness.Failure(f"the manual: {rendered.stderr}")
    sections = dict(re.findall(r"^(\S.*)\n((?:(?: .*)?\n)*)", rendered.stdout, re.MULTILINE))
    count = 0
    for name in helps.texts:
        section = sections.get(f"CRIEUR {name.upper()}", "")
        entries = helps.entries(name)
        written = re.findall(r"^ {7}(--[a-z-]+(?: [A-Z][A-Z:]*)?)(?= |$)", section, re.MULTILINE)
        if written != list(entries):
            raise harness.Failure(f"the manual of {name} has {written}, its help {list(entries)}")
        for entry, text in entries.items():
            if plain(entry + text) not in plain(section):
                raise harness.Failure(f"the manual doesn't say of {name} {entry}: {text}")
        count += len(entries)
    return count


def plain(text):
    """Without what depends on how it is set."""
    return re.sub(r"\W", "", text)


def debootstrap(deb):
    """A system with systemd and what the package depends on, since apt has no network there; made once."""
    depends = subprocess.run(["dpkg-deb", "-f", deb, "Depends"], check=True, stdout=subprocess.PIPE, text=True).stdout
    # Of alternatives the first one.
    packages = ",".join(["systemd", "man-db", *re.findall(r"(?:^|, )([a-z0-9.+-]+)", depends)])
    if shutil.which("debootstrap") is None:
        harness.install_debian_package("debootstrap")
    folder = harness.target_dir() / "packages-debian"
    has = folder / "packages"
    if not has.exists() or has.read_text() != packages:
        shutil.rmtree(folder, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        has.write_text(packages)
    return folder
