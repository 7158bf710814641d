"""Shows that the PHP in the README publishes as it stands there, also what is large; and that it says
so in the log, and goes on, where the server refuses, is down or doesn't answer.

    tests/suites/clients/run php
"""

import json
import re
import socket
import subprocess
import time
from pathlib import Path

from cases import DEADLINE_SECONDS, expect
from threads_client import ADDRESS, open_, receive, subscribe

README = Path(__file__).parents[4] / "README.md"
# Beyond 65,535 bytes, where a length by hand needs another form.
LARGE = 70_000


def main():
    (code,) = re.findall(r"^```php\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    with open_(None) as subscriber:
        subscribe(subscriber, "orders")
        expect("as it stands", run(code, ADDRESS), "")
        expect("as it stands: subscriber", text_of(receive(subscriber)), "Order 18 is paid")
        large = replace(code, "'Order 18 is paid'", f"str_repeat('b', {LARGE})")
        expect("large", run(large, ADDRESS), "")
        expect("large: subscriber", text_of(receive(subscriber)), "b" * LARGE)
        said = run(replace(code, "'channel' =>", "'chanel' =>"), ADDRESS)
        expect("refused", "not notified: {" in said and "invalid-notification" in said, True)
        said = run(replace(code, "'Order 18 is paid'", '"\\xff"'), ADDRESS)
        expect("no UTF-8", "not notified: " in said, True)
    print("php: the README's lines publish, and say what is refused")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        expect("down", "not notified: crieur cannot be reached" in run(code, address), True)
        # Now it takes connections, and answers none.
        nobody.listen()
        began = time.monotonic()
        expect("silent", "not notified: crieur cannot be reached" in run(code, address), True)
        expect("silent: soon", time.monotonic() - began < 5, True)
    print("php: the README's lines go on where the server is down or silent")


def replace(code, old, new):
    expect(f"{old} in the README", code.count(old), 1)
    return code.replace(old, new)


def run(code, address):
    """Runs the lines with another address; what they write to the log. What is behind them must be reached."""
    program = "<?php\n" + replace(code, "127.0.0.1:8000", address) + "echo 'went on';\n"
    command = ["php", "-d", "display_errors=stderr", "-d", "log_errors=1", "-d", "error_log="]
    result = subprocess.run(command, input=program, capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    expect("exit status and output of php", (result.returncode, result.stdout), (0, "went on"))
    expect("warnings", re.findall(r"Warning|Notice|Deprecated|Fatal", result.stderr), [])
    return result.stderr


def text_of(message):
    return json.loads(message)["notification"]["text"]


main()
