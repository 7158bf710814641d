"""A TCP proxy that is as bad as it is told to be."""

import collections
import random

from crowd import wire
from crowd.loop import Listener, Stream

BUFFER_BYTES_MAX = 65536
TICK_SECONDS = 0.02


class Fault:
    """What happens to one connection through the proxy. As it stands: nothing."""

    def delay(self):
        """Seconds that what has just come has to wait."""
        return 0

    # Bytes a second towards the client, or no limit.
    rate = None
    # Bytes towards the client, and towards the server, after which it is cut off.
    down_bytes_max = up_bytes_max = None
    # With a reset, or with a FIN in the middle of a frame.
    is_reset = False


class Delay(Fault):
    def __init__(self, shortest, longest):
        self.shortest, self.longest = shortest, longest

    def delay(self):
        return random.uniform(self.shortest, self.longest)


class Throttle(Fault):
    def __init__(self, rate):
        self.rate = rate


class Cut(Fault):
    def __init__(self, *, down=None, up=None, is_reset=False):
        self.down_bytes_max, self.up_bytes_max, self.is_reset = down, up, is_reset


class Proxy:
    """`fault_of` says what becomes of each connection, by its number."""

    def __init__(self, loop, target, fault_of, link=None):
        self.loop, self.target, self.fault_of = loop, target, fault_of
        self.links = set()
        self.accepted = self.cut = self.delayed = self.throttled = 0
        self.is_silent = False
        self._link = link or Link
        self._listener = Listener(loop, self._accept)
        self.address = self._listener.address

    def _accept(self, accepted):
        fault = self.fault_of(self.accepted)
        self.accepted += 1
        self.links.add(self._link(self, accepted, fault))

    def silence(self):
        """Nothing goes through any more, and nobody is told."""
        self.is_silent = True
        for link in self.links:
            link.silence()

    def speak(self):
        """Connections that come from now on are served; those that were silent stay so."""
        self.is_silent = False

    def heal(self):
        """From now on nothing is wrong with any connection."""
        self.fault_of = lambda _: Fault()
        for link in self.links:
            link.fault = Fault()
            link.client.way.left = link.server.way.left = link.server.way.rate = None

    def close(self):
        self._listener.close()
        for link in list(self.links):
            link.end(is_reset=True)


class Link:
    """One connection through the proxy."""

    def __init__(self, proxy, accepted, fault):
        self.proxy, self.fault = proxy, fault
        self.client = _End(proxy.loop)
        self.server = _End(proxy.loop)
        Stream.__init__(self.client, proxy.loop, accepted)
        self.server.dial(proxy.loop, proxy.target)
        self.client.way = _Way(self, self.client, self.server, None, fault.up_bytes_max)
        self.server.way = self.down(fault)
        if proxy.is_silent:
            self.silence()

    def down(self, fault):
        return _Way(self, self.server, self.client, fault.rate, fault.down_bytes_max)

    def silence(self):
        for end in (self.client, self.server):
            end.pause_reading()
            end.way.is_silent = True

    def cut(self):
        """The fault strikes."""
        self.proxy.cut += 1
        self.end(self.fault.is_reset)

    def end(self, is_reset):
        for end in (self.client, self.server):
            if is_reset:
                end.reset()
            else:
                end.close()
        self.proxy.links.discard(self)


class _End(Stream):
    """The proxy's side of a link's connection to the client, or to the server."""

    def __init__(self, loop):
        self.way = None

    def on_data(self, data):
        self.way.take(data)

    def on_end(self, error):
        if self.way.is_silent:
            # The other end isn't told of this either.
            return
        if error is not None:
            self.way.link.end(is_reset=True)
        else:
            self.way.take(None)

    def on_sent(self):
        """The other way waits for room here."""
        link = self.way.link
        other = link.server if self is link.client else link.client
        other.way.hold_back()


class _Way:
    """One direction of a link. What waits is kept with the time when it may go on; `None` is the end."""

    def __init__(self, link, source, sink, rate, bytes_max):
        self.link, self.source, self.sink, self.rate, self.left = link, source, sink, rate, bytes_max
        self.is_silent = False
        self._loop = link.proxy.loop
        self._waiting = collections.deque()
        self._waiting_bytes = 0
        self._is_timed = False

    def take(self, data):
        if self.left is not None and data is not None:
            data, is_cut = data[: self.left], len(data) >= self.left
            self.left -= len(data)
            if is_cut:
                self.sink.send(data)
                self.link.cut()
                return
        delay = self.link.fault.delay()
        self.link.proxy.delayed += delay > 0
        due = self._loop.now + delay
        if self._waiting:
            # What came first goes first.
            due = max(due, self._waiting[-1][0])
        self._waiting.append((due, data))
        self._waiting_bytes += len(data or b"")
        if not self._is_timed:
            self._release()

    def hold_back(self):
        """Reads on only when there is room."""
        if self.source.is_open and not self.is_silent:
            if self._waiting_bytes + self.sink.unsent > BUFFER_BYTES_MAX:
                self.source.pause_reading()
            else:
                self.source.resume_reading()

    def _release(self):
        self._is_timed = False
        if self.is_silent:
            return
        allowed = int(self.rate * TICK_SECONDS) if self.rate else None
        while self._waiting and self._waiting[0][0] <= self._loop.now and allowed != 0:
            due, data = self._waiting.popleft()
            if data is None:
                self._pass_end()
                return
            if allowed is not None:
                if len(data) > allowed:
                    self._waiting.appendleft((due, data[allowed:]))
                    self.link.proxy.throttled += 1
                data = data[:allowed]
                allowed -= len(data)
            self._waiting_bytes -= len(data)
            self.sink.send(data)
        if self._waiting:
            self._is_timed = True
            wait = self._waiting[0][0] - self._loop.now
            self._loop.later(max(wait, TICK_SECONDS if self.rate else 0), self._release)
        self.hold_back()

    def _pass_end(self):
        if self.sink.is_open:
            self.sink.finish()
        else:
            self.link.proxy.links.discard(self.link)


class Breaker(Link):
    """A server with a defect, as its clients see it: something happens to every so manieth delivery
    through the proxy. For showing that it would be found."""

    EVERY = 1000
    defect = None
    seen = 0
    held = None

    def down(self, fault):
        way = super().down(fault)
        way.take = self._take_frames
        self._tail = None
        return way

    def _take_frames(self, data):
        way = type(self.server.way).take
        if data is None:
            way(self.server.way, None)
            return
        if self._tail is None:
            head, _, data = data.partition(b"\r\n\r\n")
            way(self.server.way, head + b"\r\n\r\n")
            self._tail = b""
        data = self._tail + data
        found, taken = wire.frames(data)
        self._tail = data[taken:]
        out = []
        for opcode, payload in found:
            frame = wire.frame(opcode, payload, mask=False)
            out.append(self._spoil(frame) if payload.startswith(b'{"type":"notification"') else frame)
        way(self.server.way, b"".join(out))

    def _spoil(self, frame):
        kind = type(self)
        kind.seen += 1
        if kind.seen % self.EVERY:
            held, self.held = self.held, None
            return frame + held if held else frame
        if self.defect == "lose":
            return b""
        if self.defect == "double":
            return frame + frame
        if self.defect == "swap":
            # Behind the next one.
            self.held = frame
            return b""
        if self.defect == "misroute":
            for link in list(self.proxy.links):
                # To those that have their answer to the upgrade.
                if link._tail is not None:
                    link.client.send(frame)
            return b""
        if self.defect == "renumber":
            # Its id becomes that of another.
            head, quote, rest = frame.partition(b'","notification":')
            return head[:-1] + b"%d" % ((head[-1] + 1) % 10) + quote + rest
        if self.defect == "damage":
            return frame[:-4] + b"!" + frame[-3:]
        return frame
