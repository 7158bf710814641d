"""An event loop on epoll, and streams on it. Knows no protocol."""

import errno
import heapq
import itertools
import select
import socket
import struct
import time

import harness

READ_BYTES = 65536
_LINGER_RESET = struct.pack("ii", 1, 0)


class Timer:
    """A call that comes later, unless it is cancelled."""

    __slots__ = ("call",)

    def __init__(self, call):
        self.call = call

    def cancel(self):
        self.call = None


class Loop:
    """Turns on behalf of the caller that waits: a test is a straight line of `until`s."""

    def __init__(self):
        self.now = time.monotonic()
        self._epoll = select.epoll()
        self._handlers = {}
        self._timers = []
        self._serial = itertools.count()

    def close(self):
        self._epoll.close()

    def register(self, descriptor, events, handler):
        self._epoll.register(descriptor, events)
        self._handlers[descriptor] = handler

    def modify(self, descriptor, events):
        self._epoll.modify(descriptor, events)

    def unregister(self, descriptor):
        self._epoll.unregister(descriptor)
        del self._handlers[descriptor]

    def later(self, seconds, call):
        timer = Timer(call)
        heapq.heappush(self._timers, (self.now + seconds, next(self._serial), timer))
        return timer

    def every(self, seconds, call):
        """Calls again and again until the timer is cancelled; what was late isn't made up for."""
        timer = Timer(call)

        def again():
            if timer.call is not None:
                timer.call()
                self.later(seconds, again)

        self.later(seconds, again)
        return timer

    def turn(self, seconds_max=0.1):
        """Handles what is ready, waiting for it for a while at the most."""
        if self._timers:
            seconds_max = min(seconds_max, max(0.0, self._timers[0][0] - time.monotonic()))
        ready = self._epoll.poll(seconds_max, 1024)
        self.now = time.monotonic()
        for descriptor, events in ready:
            # A connection that was handled before may have closed this one.
            if handler := self._handlers.get(descriptor):
                handler(events)
        while self._timers and self._timers[0][0] <= self.now:
            call = heapq.heappop(self._timers)[2].call
            if call is not None:
                call()

    def until(self, condition, what, seconds_max=30):
        """Turns until `condition()`; a failure that says what was waited for if that takes too long."""
        deadline = time.monotonic() + seconds_max
        while not condition():
            if time.monotonic() > deadline:
                raise harness.Failure(f"{what}: not after {seconds_max} s")
            self.turn()

    def pause(self, seconds):
        """Turns for a while: the length of a fault, never a guess at how long something takes."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.turn(min(left, 0.1))


class Rate:
    """Something that happens so many times a second."""

    TICK_SECONDS = 0.02

    def __init__(self, loop, per_second, call, *, stall_seconds_max=0.2):
        self._call, self._per_second, self._stall_seconds_max = call, per_second, stall_seconds_max
        self._due, self._then = 0.0, time.monotonic()
        self._timer = loop.every(self.TICK_SECONDS, self._tick)

    def _tick(self):
        now = time.monotonic()
        # What a longer stall has kept back doesn't come as a flood.
        self._due += min(now - self._then, self._stall_seconds_max) * self._per_second
        self._then = now
        while self._due >= 1:
            self._due -= 1
            self._call()

    def stop(self):
        self._timer.cancel()


class Stream:
    """A TCP connection that never blocks. A subclass overrides `on_…`."""

    def __init__(self, loop, connected):
        self.loop = loop
        self.socket = connected
        self.is_connected = True
        self._unsent = bytearray()
        self._is_reading = True
        self._ends_when_sent = False
        connected.setblocking(False)
        self._descriptor = connected.fileno()
        self._events = select.EPOLLIN
        loop.register(self._descriptor, self._events, self._handle)

    @classmethod
    def _dial(cls, address, source=None, receive_buffer=None):
        """A socket on its way to `address`."""
        dialled = socket.socket()
        dialled.setblocking(False)
        dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            dialled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source is not None:
            # The port is chosen when the destination is known, so each source has all of them.
            dialled.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
            dialled.bind((source, 0))
        code = dialled.connect_ex(address)
        if code not in (0, errno.EINPROGRESS):
            dialled.close()
            raise OSError(code, "cannot connect")
        return dialled

    def dial(self, loop, address, source=None, receive_buffer=None):
        """Becomes a connection to `address`; `on_connected` or `on_end` says when."""
        Stream.__init__(self, loop, self._dial(address, source, receive_buffer))
        self.is_connected = False
        self._arm()

    @property
    def is_open(self):
        return self.socket is not None

    @property
    def unsent(self):
        """Bytes that the socket hasn't taken yet."""
        return len(self._unsent)

    def send(self, data):
        if self.socket is None:
            return
        if not self._unsent and self.is_connected:
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self._end(error)
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._unsent += data
        self._arm()

    def pause_reading(self):
        self._is_reading = False
        self._arm()

    def resume_reading(self):
        self._is_reading = True
        self._arm()

    def finish(self):
        """Sends what is left, then a FIN."""
        self._ends_when_sent = True
        if not self._unsent:
            self._shut()

    def close(self):
        """Closes, without `on_end`."""
        if self.socket is not None:
            self.loop.unregister(self._descriptor)
            self.socket.close()
            self.socket = None

    def reset(self):
        """Closes with a reset, without `on_end`."""
        if self.socket is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
            self.close()

    def on_connected(self):
        pass

    def on_data(self, data):
        pass

    def on_sent(self):
        """All that was to be sent has gone out."""

    def on_end(self, error):
        """The peer has finished, or `error` has; the socket is closed."""

    def _arm(self):
        if self.socket is None:
            return
        events = select.EPOLLIN if self._is_reading else 0
        if self._unsent or not self.is_connected:
            events |= select.EPOLLOUT
        if events != self._events:
            self._events = events
            self.loop.modify(self._descriptor, events)

    def _shut(self):
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._end(error)

    def _end(self, error):
        self.close()
        self.on_end(error)

    def _handle(self, events):
        if not self.is_connected:
            if code := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._end(OSError(code, "cannot connect"))
                return
            if not events & select.EPOLLOUT:
                return
            self.is_connected = True
            self.on_connected()
        if self._unsent and events & select.EPOLLOUT:
            self._send_rest()
        if self.socket is None:
            return
        if events & select.EPOLLIN and self._is_reading:
            self._read()
        elif events & (select.EPOLLERR | select.EPOLLHUP):
            # A peer that isn't read can only be told by this that it has gone.
            self._end(ConnectionResetError())
        if self.socket is not None:
            self._arm()

    def _send_rest(self):
        try:
            del self._unsent[: self.socket.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        if not self._unsent:
            if self._ends_when_sent:
                self._shut()
            self.on_sent()

    def _read(self):
        try:
            data = self.socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(error)
            return
        if data:
            self.on_data(data)
        else:
            self._end(None)


class Listener:
    """Accepts on a free port of the loopback."""

    def __init__(self, loop, on_accept):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.socket.setblocking(False)
        self.address = self.socket.getsockname()
        self._loop = loop
        self._on_accept = on_accept
        loop.register(self.socket.fileno(), select.EPOLLIN, self._handle)

    def _handle(self, _events):
        for _ in range(64):
            try:
                accepted, _ = self.socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            self._on_accept(accepted)

    def close(self):
        self._loop.unregister(self.socket.fileno())
        self.socket.close()
