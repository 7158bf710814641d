"""Shows that the threaded client of `websockets` subscribes, publishes, pings and closes.

    tests/suites/clients/run threads
"""

import json
import sys

import cases
from cases import expect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

ADDRESS = sys.argv[1]


def main():
    with open_("deflate") as subscriber, open_(None) as bystander:
        subscribe(subscriber, cases.page("2", "5"), cases.marker_subscription())
        subscribe(bystander, cases.page("3"), cases.marker_subscription())
        for name, send in {
            "whole": lambda publisher, message: publisher.send(message),
            "in fragments": lambda publisher, message: publisher.send(cases.fragments(message), text=True),
        }.items():
            for compression in ("deflate", None):
                notification = cases.notification(f"threads {name} {compression}")
                publish(send, cases.publish(notification), 1, compression)
                publish(send, cases.PUBLISH_MARKER, 2, compression)
                expect(f"{name}: subscriber", receive(subscriber), cases.delivered(notification))
                expect(f"{name}: subscriber, then", receive(subscriber), cases.DELIVERED_MARKER)
                expect(f"{name}: bystander", receive(bystander), cases.DELIVERED_MARKER)
            print(f"threads: published {name}")
        pings(subscriber)
        subscriber.close()
        expect("the answer to a Close", subscriber.close_code, 1000)


def open_(compression):
    return connect(f"ws://{ADDRESS}/", compression=compression, proxy=None)


def receive(connection):
    return connection.recv(timeout=cases.DEADLINE_SECONDS)


def subscribe(connection, *subscriptions):
    expect("extensions", connection.response.headers.get("Sec-WebSocket-Extensions"), None)
    connection.send(cases.subscribe(*subscriptions))
    answer = json.loads(receive(connection))
    expect("subscribed", (answer["type"], answer["subscriptions"]), ("subscribed", len(subscriptions)))


def publish(send, message, count, compression):
    with open_(compression) as publisher:
        send(publisher, message)
        try:
            expect("a publisher's answer", receive(publisher), "a Close")
        except ConnectionClosed:
            expect("Close", (publisher.close_code, cases.without_ids(publisher.close_reason)), (1000, cases.taken(count)))


def pings(connection):
    answered = connection.ping(b"x" * 125)
    expect("a Pong of the same payload", answered.wait(cases.DEADLINE_SECONDS), True)
    connection.send('{"type":"ping"}')
    expect("pong", json.loads(receive(connection)), {"type": "pong"})
    print("threads: pings are answered")


if __name__ == "__main__":
    main()
