"""Shows that what PHP publishes arrives, exactly once, also where PHP hangs up at once.

Runs ../php/publish.php, several of them side by side, and subscribes with `websockets`.

    tests/suites/clients/run php
"""

import json
import subprocess
import sys
from pathlib import Path

import cases
from cases import expect
from threads_client import ADDRESS, open_, publish, receive, subscribe

PUBLISH = Path(__file__).parents[1] / "php" / "publish.php"
PROCESSES = 4
# How often each way of publishing is tried; what depends on who is faster, more often.
WAYS = {"answered": 20, "one-packet": 20, "hang-up": 200, "one-packet-hang-up": 200, "reset": 200}


def main():
    with open_(None) as subscriber, open_(None) as bystander:
        subscribe(subscriber, cases.page("2", "5"), cases.marker_subscription())
        subscribe(bystander, cases.page("3"), cases.marker_subscription())
        for way, count in WAYS.items():
            notifications = [cases.notification(f"php {way} {number}") for number in range(count)]
            answers = [[code, cases.without_ids(reason)] for code, reason in run_php(way, notifications)]
            wanted = [] if way in ("hang-up", "one-packet-hang-up", "reset") else count * [[1000, cases.taken(1)]]
            expect(f"{way}: answers", answers, wanted)
            # In any order: each came on a connection of its own.
            got = sorted(receive(subscriber) for _ in notifications)
            expect(f"{way}: subscriber", got, sorted(map(cases.delivered, notifications)))
            publish(lambda publisher, message: publisher.send(message), cases.PUBLISH_MARKER, 2, None)
            expect(f"{way}: subscriber, then", receive(subscriber), cases.DELIVERED_MARKER)
            expect(f"{way}: bystander", receive(bystander), cases.DELIVERED_MARKER)
            print(f"php: {way}: {count} of {count} delivered once")


def run_php(way, notifications):
    """Publishes `notifications`, each on its own connection; the answers that PHP read."""
    messages = [cases.publish(notification) for notification in notifications]
    command = ["php", PUBLISH, way, ADDRESS]
    processes = []
    for start in range(PROCESSES):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        # PHP reads all of it before it publishes: now they run side by side.
        process.stdin.write(json.dumps(messages[start::PROCESSES]))
        process.stdin.close()
        process.stdin = None
        processes.append(process)
    answers = []
    for process in processes:
        output, _ = process.communicate(timeout=cases.DEADLINE_SECONDS * 3)
        expect(f"{way}: exit status of php", process.returncode, 0)
        answers += map(json.loads, output.splitlines())
    return answers


main()
