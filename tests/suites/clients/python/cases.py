"""What the Python clients publish, and what subscribers must see of it.

A module, nothing to run.
"""

import json
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "support"))
from receipts import without_ids  # noqa: E402

RUN = f"python-{os.getpid()}"
TEMPLATE = (Path(__file__).parents[1] / "notification.json").read_text().rstrip("\n")
# More than 65,535 bytes: the length takes 8 bytes, and no socket takes it all at once.
LARGE = "grand é " * 30_000
DEADLINE_SECONDS = 10


def subscribe(*subscriptions):
    return json.dumps({"sender": "client", "subscriptions": subscriptions})


def page(*channels):
    """The subscription that meets `notification()` if `channels` name 2."""
    return {"package": "clients", "page": f"page-{RUN}", "filters": {"values": {"channel": channels}}}


def marker_subscription():
    return f"marker-{RUN}"


def notification(id):
    """A notification whose white space, numbers, escapes and order must arrive as they are."""
    return TEMPLATE.replace("@RUN@", RUN).replace("@ID@", id)


def large_notification():
    return notification(LARGE)


def publish(notification):
    return f'{{"sender":"server","notification":{notification}}}'


def delivered(notification):
    """The message that a subscriber gets of it."""
    return f'{{"type":"notification","notification":{notification}}}'


MARKER = f'{{"channel":"marker-{RUN}","message":"end"}}'
PUBLISH_MARKER = f'{{"sender":"server","type":"refreshcontent","notification":{MARKER}}}'
DELIVERED_MARKER = f'{{"type":"refreshcontent","notification":{MARKER}}}'


def taken(count):
    """The reason of the Close that a publisher gets, but for the id."""
    return f'{{"delivered":{count}}}'


def fragments(message):
    """`message` as bytes in pieces of 7, which cut through characters; the first is empty."""
    payload = message.encode()
    return [b"", *(payload[start : start + 7] for start in range(0, len(payload), 7))]


def expect(what, got, wanted):
    if got != wanted:
        raise SystemExit(f"{what}: got {shown(got)}, expected {shown(wanted)}")


def shown(value):
    text = repr(value)
    return text if len(text) < 1000 else f"{text[:1000]}… ({len(text)} characters)"
