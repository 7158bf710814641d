"""RFC 6455 as a client writes and reads it: bytes in, bytes out."""

import base64
import hashlib
import os
import struct

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_KEY = base64.b64encode(os.urandom(16))
_ACCEPT = base64.b64encode(hashlib.sha1(_KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
_MASKING_KEY = os.urandom(4)


class Violation(Exception):
    """The server has said what a server mustn't."""


def upgrade(path="/", fields=()):
    """The request; `fields` are whole lines of the head."""
    lines = [
        b"GET %s HTTP/1.1" % path.encode(), b"Host: localhost", b"Upgrade: websocket", b"Connection: Upgrade",
        b"Sec-WebSocket-Key: " + _KEY, b"Sec-WebSocket-Version: 13", *fields, b"", b"",
    ]
    return b"\r\n".join(lines)


def status(head):
    """The status code of a response; that of an upgrade must prove that it has seen the key."""
    version, _, rest = head.partition(b" ")
    if version != b"HTTP/1.1" or not rest[:3].isdigit():
        raise Violation(f"no response: {head[:80]!r}")
    code = int(rest[:3])
    if code == 101 and b"\r\nSec-WebSocket-Accept: " + _ACCEPT + b"\r\n" not in head:
        raise Violation("a wrong Sec-WebSocket-Accept")
    return code


def frame(opcode, payload=b"", *, mask=True):
    """A frame that is a message of its own."""
    size = len(payload)
    bit = 0x80 if mask else 0
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, bit | size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x80 | opcode, bit | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, bit | 127, size)
    if not mask:
        return head + payload
    key = _MASKING_KEY * (size // 4 + 1)
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(key[:size], "big")
    return head + _MASKING_KEY + masked.to_bytes(size, "big")


def text(message):
    return frame(TEXT, message.encode())


def close(code):
    return frame(CLOSE, struct.pack("!H", code))


def frames(data):
    """The whole frames at the beginning of what a server has sent, as opcode and payload, and
    how many bytes they take."""
    found, at, end = [], 0, len(data)
    while end - at >= 2:
        first, size = data[at], data[at + 1]
        body = at + 2
        if first & 0xF0 != 0x80:
            raise Violation(f"a frame that begins with {first:#04x}")
        if size & 0x80:
            raise Violation("a masked frame")
        if size == 126:
            if end - at < 4:
                break
            size = data[at + 2] << 8 | data[at + 3]
            body = at + 4
        elif size == 127:
            if end - at < 10:
                break
            size = int.from_bytes(data[at + 2 : at + 10], "big")
            body = at + 10
        if body + size > end:
            break
        found.append((first & 0x0F, data[body : body + size]))
        at = body + size
    return found, at
