"""A server on `socketify`, which is uWebSockets with handlers in Python.

Subscribers are topics of uWebSockets: it frames a notification once for a topic, and writes what
a subscriber is to get at the end of the loop's turn. Only the publishers' and subscribers' messages
come to Python. libuv's loop is run as it is: `App.run` would poll it from asyncio, which nothing
here needs, and burn the core while nothing happens.

With --bare, whatever comes is answered by a Close that says nothing was delivered: what a cycle of uWebSockets costs
under Python at least, without a line of the logic.
"""

import json
import re
import sys

from socketify import App, AppListenOptions, OpCode

KEPT_PATH = "/publish"
BYTES_MAX = 1024 * 1024
NOTHING_DELIVERED = '{"delivered":0}'
PONG = '{"type":"pong"}'
MEMBER = re.compile(r'[\s{,]*("(?:[^"\\]|\\.)*")\s*:\s*')
DECODER = json.JSONDecoder()


def main():
    is_bare = sys.argv[1:2] == ["--bare"]
    arguments = sys.argv[1 + is_bare :]
    if len(arguments) != 2 or arguments[0] != "--listen":
        sys.exit("usage: server.py [--bare] --listen HOST:PORT")
    host, _, port = arguments[1].rpartition(":")
    app = App()
    if is_bare:
        app.ws("/*", {**behavior(app, None), "message": lambda ws, message, opcode: ws.end(1000, NOTHING_DELIVERED)})
    else:
        app.ws(KEPT_PATH, behavior(app, answer_published))
        app.ws("/*", behavior(app, close_published))
    app.listen(
        AppListenOptions(port=int(port), host=host),
        lambda config: print(f"listening on {host}:{config.port}", flush=True),
    )
    app.loop.uv_loop.run()


def behavior(app, answer_publisher):
    def on_message(ws, message, opcode):
        if opcode != OpCode.TEXT:
            ws.end(1003, "")
            return
        try:
            handle(app, ws, message, answer_publisher)
        except json.JSONDecodeError as error:
            send_error(ws, "invalid-json", str(error))

    return {
        # Off, and what else is not the library's default: limits as the project has them.
        "compression": 0,
        "max_payload_length": BYTES_MAX,
        "max_backpressure": BYTES_MAX,
        "close_on_backpressure_limit": True,
        "idle_timeout": 120,
        "send_pings_automatically": True,
        "message": on_message,
    }


def handle(app, ws, text, answer_publisher):
    message, notification = parse(text)
    sender = message.get("sender")
    if sender == "server":
        topic = topic_of(message.get("notification"))
        if topic is None:
            send_error(ws, "invalid-notification", "a package, page and channel are needed")
            return
        delivered = app.num_subscribers(topic)
        name = json.dumps(message.get("type", "notification"))
        app.publish(topic, f'{{"type":{name},"notification":{notification}}}', OpCode.TEXT)
        answer_publisher(ws, f'"delivered":{delivered}')
    elif sender == "client" and "subscriptions" in message:
        subscribe(ws, message["subscriptions"])
    elif sender is None and message.get("type") == "ping":
        ws.send(PONG, OpCode.TEXT)
    else:
        send_error(ws, "unknown-message", "no such message")


def answer_published(ws, counts):
    ws.send(f'{{"type":"published",{counts}}}', OpCode.TEXT)


def close_published(ws, counts):
    ws.end(1000, f"{{{counts}}}")


def parse(text):
    """The members of an object, and the text of its member `notification` as it was sent."""
    text = text.strip()
    message, notification, at = {}, None, 0
    while member := MEMBER.match(text, at):
        name = json.loads(member[1])
        message[name], at = DECODER.raw_decode(text, member.end())
        if name == "notification":
            notification = text[member.end() : at]
    if not (text.startswith("{") and text[at:].strip(" \t\r\n{") == "}"):
        raise json.JSONDecodeError("expected an object", text, at)
    return message, notification


def subscribe(ws, subscriptions):
    try:
        topics = {topic for subscription in subscriptions for topic in topics_of(subscription)}
    except (KeyError, TypeError, ValueError):
        send_error(ws, "invalid-subscription", "a package, page and channel are needed")
        return
    for topic in ws.get_topics():
        if topic not in topics:
            ws.unsubscribe(topic)
    for topic in topics:
        ws.subscribe(topic)
    ws.send(f'{{"type":"subscribed","subscriptions":{len(subscriptions)},"heartbeat":25}}', OpCode.TEXT)


def topics_of(subscription):
    if isinstance(subscription, str):
        return [subscription]
    channel = subscription["filters"]["values"]["channel"]
    channels = channel if isinstance(channel, list) else [channel]
    if not all(isinstance(value, str | int) for value in channels):
        raise ValueError
    return [filter_topic(subscription["package"], subscription["page"], value) for value in channels]


def topic_of(notification):
    """The one topic of a notification: by package, page and channel, or by channel alone."""
    try:
        if "package" in notification:
            channel = notification["filters"]["values"]["channel"]
            topic = filter_topic(notification["package"], notification["page"], channel)
        else:
            topic = str(channel := notification["channel"])
    except (KeyError, TypeError):
        return None
    return topic if isinstance(channel, str | int) else None


def filter_topic(package, page, channel):
    return f"{package}\x1f{page}\x1f{channel}"


def send_error(ws, code, detail):
    ws.send(json.dumps({"type": "error", "error": {"code": code, "detail": detail}}), OpCode.TEXT)


main()
