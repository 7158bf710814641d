"""The Composer package: its metadata is valid and its style PSR-12; its archive has what users need and nothing else; installed
by Composer in a fresh project, it publishes and signs as its README says, against a server.

With --full, the fresh projects install it by the README's own commands, from a checkout and from the archive. Nothing is
asked of Packagist. Needs Composer, PHP_CodeSniffer and, with --full, the extension zip, all of Debian.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import harness

SOURCES = harness.ROOT / "src" / "php"
CHECKS = Path(__file__).with_name("composer_checks.php")
TOOLS = {"composer": "composer", "phpcs": "php-codesniffer"}
SECONDS_MAX = 120
ARRIVAL_SECONDS_MAX = 30
# Behind this, the subscriber gets what is published.
UNTIL_SUBSCRIBED = """
$publisher = new Publisher('http://127.0.0.1:8000');
$end = time() + 10;
do {
    $ready = $publisher->publish(['channel' => 'user-17'], keep: false)->orThrow()->delivered;
} while ($ready === 0 && time() < $end);
"""


def check(full):
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            harness.install_debian_package(package)
    harness.cargo_build("--bin", "crieur")
    composer(SOURCES, "validate", "--strict")
    check_sources()
    (archive,) = harness.build_packages("composer").glob("crieur-client-*.tar.gz")
    with tempfile.TemporaryDirectory(prefix="crieur-composer-") as folder:
        folder = Path(folder)
        files = check_archive(archive, folder / "unpacked")
        projects = [project(folder / "path", f"path {folder}/unpacked", "crieur/client:*")]
        if full:
            install_zip()
            commands = install_commands()
            (folder / "crieur").symlink_to(harness.ROOT)
            projects += [project(folder / f"readme-{number}", *each) for number, each in enumerate(commands)]
            composer(projects[-1], "dump-autoload", "--classmap-authoritative", "--optimize", "--strict-psr")
        log = harness.target_dir() / "packages" / "composer.log"
        key = folder / "client.key"
        subprocess.run([program(), "keygen", "client", key], check=True, stdout=subprocess.DEVNULL)
        for each in projects:
            # A server of its own: it doesn't know the keys of what the others have published.
            with harness.server([program(), "--listen", "127.0.0.1:0", "--client-key-file", key], log) as address:
                check_readme(each, address, key)
                check_tokens(each, address, key)
    return f"packages: composer: valid, PSR-12, {files} files; installed {len(projects)} times, published and signed"


def program():
    return harness.target_dir() / "release" / "crieur"


def composer(folder, *arguments):
    # Not what the user of this machine has set.
    home = harness.target_dir() / "packages" / "composer-home"
    environment = {**os.environ, "COMPOSER_HOME": str(home), "COMPOSER_ALLOW_SUPERUSER": "1"}
    command = ["composer", "--no-interaction", "--no-ansi", *arguments]
    said = run(command, cwd=folder, env=environment)
    return said.stdout + said.stderr


def run(command, **options):
    """What it says; a failure if it fails, or PHP warns of something."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX, stdin=subprocess.DEVNULL, **options)
    if done.returncode != 0:
        raise harness.Failure(f"`{shlex.join(map(str, command))}` exited with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def check_sources():
    files = [*SOURCES.rglob("*.php"), *(harness.ROOT / "docs" / "messaging" / "api").glob("*.php"), CHECKS]
    run(["phpcs", "--standard=PSR12", SOURCES])
    for file in files:
        run(["php", "-l", file])


def check_archive(archive, folder):
    """It has the version of Cargo.toml, and these files. How many they are."""
    folder.mkdir()
    subprocess.run(["tar", "-xzf", archive, "-C", folder], check=True)
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    classes = {str(file.relative_to(SOURCES)) for file in (SOURCES / "src").rglob("*.php")}
    expected = {"composer.json", "README.md", "LICENSE-MIT", "LICENSE-APACHE", "autoload.php", *classes}
    if found != expected:
        raise harness.Failure(f"the archive lacks {sorted(expected - found)}, and has {sorted(found - expected)} too much")
    (version,) = re.findall(r'^version = "(.*)"$', (harness.ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    packed = json.loads((folder / "composer.json").read_text())["version"]
    if packed != version or version not in archive.name:
        raise harness.Failure(f"{archive.name} has version {packed}, Cargo.toml has {version}")
    return len(found)


def project(folder, repository, wanted):
    """A fresh project that has installed the package, and knows no other repository."""
    folder.mkdir()
    (folder / "composer.json").write_text('{"repositories": {"packagist.org": false}}')
    composer(folder, "config", "repositories.crieur", *shlex.split(repository))
    composer(folder, "require", *shlex.split(wanted))
    return folder


def install_commands():
    """What the README says: the repository, and what is required."""
    readme = (SOURCES / "README.md").read_text()
    found = re.findall(r"^composer config repositories\.crieur (.*)\ncomposer require (.*)$", readme, re.MULTILINE)
    if len(found) != 2:
        raise harness.Failure(f"the README of the package has {len(found)} ways to install it instead of 2")
    packages = str(harness.target_dir() / "packages")
    return [(repository.replace("../crieur/target/packages", packages), wanted) for repository, wanted in found]


def install_zip():
    if "zip" not in run(["php", "-m"]).stdout.split():
        harness.install_debian_package("php-zip")


def check_readme(folder, address, key):
    """Runs the blocks of the README, with this server and this key; what they publish arrives with the token they sign."""
    blocks = re.findall(r"^```php\n(.*?)^```$", (SOURCES / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    token_block = next(block for block in blocks if "ClientKey" in block)
    others = [block for block in blocks if block is not token_block]
    token = folder / "client.token"
    token.touch(mode=0o600)
    token.write_text(php(folder, token_block.replace("/etc/crieur/client.key", str(key))) + "\n")
    before = "$notification = ['channel' => 'user-17', 'text' => 'one'];\n$id = 1;\n$userIds = [17, 18];\n"
    command = [program(), "subscribe", "--url", f"ws://{address}/", "--token-file", token, "--since", "", "user-17"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as subscriber:
        late = threading.Timer(ARRIVAL_SECONDS_MAX, subscriber.kill)
        late.start()
        try:
            code = before + UNTIL_SUBSCRIBED + "".join(others)
            said = php(folder, code.replace("127.0.0.1:8000", address))
            if said:
                raise harness.Failure(f"the README's lines say {said}")
            lines = [subscriber.stdout.readline() for _ in range(3)]
        finally:
            late.cancel()
            subscriber.kill()
    texts = [line and json.loads(line)["notification"].get("text") for line in lines]
    if texts != [None, "one", "The shop is open"]:
        raise harness.Failure(f"the subscriber of the README's lines got {lines}")


def php(folder, code):
    """What the code says, as a script in the project; its errors too."""
    script = folder / "script.php"
    # `use` counts for the whole file, and only once.
    uses = sorted(set(re.findall(r"^use .*;$", code, re.MULTILINE)))
    rest = re.sub(r"^use .*;\n", "", code, flags=re.MULTILINE)
    script.write_text("<?php\n\n" + "\n".join(uses) + "\nrequire 'vendor/autoload.php';\n" + rest)
    done = run(["php", "-d", "display_errors=stderr", "-d", "error_reporting=-1", "-d", "log_errors=1", "-d", "error_log=", script], cwd=folder)
    return done.stdout + done.stderr


def check_tokens(folder, address, key):
    # Some of them open many files.
    done = run(["prlimit", "--nofile=4096", "php", "-d", "display_errors=stderr", CHECKS, address, key], cwd=folder)
    tokens = done.stdout.split()
    if len(tokens) != 5 or done.stderr:
        raise harness.Failure(f"{CHECKS.name} made {len(tokens)} tokens and said {done.stderr}")
    for token in tokens:
        said = run([program(), "token", "--check", token, "--client-key-file", key, "user-17"]).stdout
        if "taken: " not in said:
            raise harness.Failure(f"the server would say of {token}: {said}")
