"""Shows that the PHP in docs/from-php.md publishes by Redis as it stands there, also what is large; and that it says so in
the log, and goes on, where Redis refuses, is down or doesn't answer."""

import json
import re
import shutil
import socket
import subprocess

import harness
from crowd.clients import Client
from stage import Stage

PAGE = harness.ROOT / "docs" / "from-php.md"
SECONDS_MAX = 20
# Beyond what a socket takes at once.
LARGE = 3_000_000


def run():
    if shutil.which("php") is None:
        harness.install_debian_package("php-cli")
    if "redis" not in subprocess.run(["php", "-m"], capture_output=True, text=True).stdout.split():
        harness.install_debian_package("php-redis")
    snippets = re.findall(r"^```php\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    check(len(snippets) == 2, f"{len(snippets)} snippets in {PAGE}")
    with Stage("php", clients=0) as stage:
        stage.rest()
        subscribers = [_Subscriber(stage.loop, node.address) for node in stage.nodes]
        stage.wait_until(lambda: all(subscriber.is_ready for subscriber in subscribers), "all are subscribed")
        texts = []
        for code in snippets:
            play = lambda code, says="": _run(code, stage.database.port, says)  # noqa: E731
            play(code)
            play(_replace(code, "'Bonjour'", f"str_repeat('b', {LARGE})"))
            texts += ["Bonjour", "b" * LARGE]
            play(_replace(code, "'Bonjour'", "'Été ☃'"))
            play(_replace(code, "'Bonjour'", '"\\xff"'))
            texts += ["Été ☃", "\ufffd"]
            stage.wait_until(lambda: all(len(each.texts) == len(texts) for each in subscribers), "all have it")
            stage.database.ask("CONFIG", "SET", "maxmemory", 1)
            play(code, "not notified: .*OOM.*")
            stage.database.ask("CONFIG", "SET", "maxmemory", 0)
            stage.database.ask("CONFIG", "SET", "requirepass", "x")
            play(code, "not notified: .*NOAUTH.*")
            _authenticated(stage)
            with socket.socket() as nobody:
                nobody.bind(("127.0.0.1", 0))
                port = nobody.getsockname()[1]
                _run(code, port, "not notified: .+")
                # Now it takes connections, and answers none.
                nobody.listen()
                _run(code, port, "not notified: .+")
        for subscriber in subscribers:
            check(subscriber.texts == texts, f"a subscriber got {[text[:20] for text in subscriber.texts]}")
        check(len(stage.database.ask("XRANGE", "crieur", "-", "+")) >= len(texts), "the stream has them")
    print("redis: the PHP of docs/from-php.md publishes, with phpredis and without")


def check(is_so, text):
    if not is_so:
        raise harness.Failure(f"php: {text}")


def _authenticated(stage):
    stage.database.ask_all(("AUTH", "x"), ("CONFIG", "SET", "requirepass", ""))


class _Subscriber(Client):
    def __init__(self, loop, address):
        self.texts, self.is_ready = [], False
        super().__init__(loop, address)

    def on_upgraded(self):
        self.say('{"sender":"client","subscriptions":["Production"]}')

    def on_text(self, payload):
        message = json.loads(payload)
        if message["type"] == "subscribed":
            self.is_ready = True
        else:
            self.texts.append(message["notification"]["text"])


def _replace(code, old, new):
    check(code.count(old) == 1, f"{old} is {code.count(old)} times in a snippet")
    return code.replace(old, new)


def _run(code, port, says):
    """Runs the lines with another port; what they write to the log is `says`. What is behind them must be reached."""
    check("6379" in code, "a snippet names no port")
    program = "<?php\n" + code.replace("6379", str(port)) + "echo 'went on';\n"
    command = ["php", "-d", "display_errors=stderr", "-d", "log_errors=1", "-d", "error_log="]
    result = subprocess.run(command, input=program, capture_output=True, text=True, timeout=SECONDS_MAX)
    check((result.returncode, result.stdout) == (0, "went on"), f"it ended with {result}")
    check(not re.search(r"Warning|Notice|Deprecated|Fatal", result.stderr), result.stderr)
    check(re.fullmatch(says + r"\s*", result.stderr) if says else not result.stderr, f"it said {result.stderr!r}, not {says!r}")
