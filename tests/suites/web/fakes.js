// A clock that the test turns, a WebSocket whose other end is the test, and a device that says what
// the test wants. Nothing of it is shared between tests.

import assert from 'node:assert/strict';
import { Crieur } from '@crieur/client';

const real = { setTimeout, clearTimeout, setImmediate, now: Date.now, random: Math.random };

/** Lets every promise that can go on go on. */
export const settle = () => new Promise((resolve) => real.setImmediate(resolve));

/** The time and the timers of the process, turned by hand. */
export class Clock {
  now = 1_700_000_000_000;
  #timers = new Map();
  #next = 1;

  constructor() {
    globalThis.setTimeout = (then, delay) => {
      // As the real ones do.
      assert.ok(delay >= 0 && delay < 2 ** 31, `a timer of ${delay} ms`);
      this.#timers.set(this.#next, { due: this.now + delay, then });
      return this.#next++;
    };
    globalThis.clearTimeout = (id) => this.#timers.delete(id);
    Date.now = () => this.now;
  }

  /** How many timers wait. */
  get pending() {
    return this.#timers.size;
  }

  /** Lets time pass, and what is due happen when it is due. */
  async pass(ms) {
    await settle();
    const end = this.now + ms;
    for (;;) {
      const [id, timer] = [...this.#timers].sort(([, a], [, b]) => a.due - b.due)[0] ?? [];
      if (timer === undefined || timer.due > end) break;
      this.#timers.delete(id);
      this.now = Math.max(this.now, timer.due);
      timer.then();
      await settle();
    }
    this.now = end;
  }

  /** Lets time pass while the device sleeps: what was due meanwhile is due at once. */
  sleep(ms) {
    this.now += ms;
  }

  /** The same where the timers sleep too, and go on where they were. */
  sleepWithTimers(ms) {
    this.now += ms;
    for (const timer of this.#timers.values()) timer.due += ms;
  }

  restore() {
    globalThis.setTimeout = real.setTimeout;
    globalThis.clearTimeout = real.clearTimeout;
    Date.now = real.now;
    Math.random = real.random;
  }
}

/** A constructor of sockets that remembers them. */
export function fakeWebSocket() {
  return class FakeWebSocket {
    static all = [];
    static get last() {
      return this.all[this.all.length - 1];
    }
    sent = [];
    /** What `close` was called with, once it was. */
    closed = null;
    isOpen = false;

    constructor(url) {
      this.url = url;
      FakeWebSocket.all.push(this);
    }
    send(text) {
      assert.ok(this.isOpen, 'sent before it was open');
      assert.equal(this.closed, null, 'sent behind close()');
      this.sent.push(text);
    }
    close(...values) {
      this.closed = values;
    }

    // The other end.
    open() {
      this.isOpen = true;
      this.onopen({});
    }
    receive(value) {
      this.onmessage({ data: typeof value === 'string' ? value : JSON.stringify(value) });
    }
    end(code, reason = '') {
      this.onerror({});
      this.onclose({ code, reason });
    }
    /** Opens, and answers the set of subscriptions. */
    accept(heartbeat = 25, members = {}) {
      this.open();
      this.acknowledge(heartbeat, members);
    }
    acknowledge(heartbeat = 25, members = {}) {
      const { subscriptions } = JSON.parse(this.sent[this.sent.length - 1]);
      this.receive({ type: 'subscribed', subscriptions: subscriptions.length, heartbeat, ...members });
    }
    /** What was sent, without the pings. */
    get lists() {
      return this.sent.filter((text) => text !== PING).map((text) => JSON.parse(text));
    }
    /** The sets of subscriptions that were sent. */
    get sets() {
      return this.lists.map(({ subscriptions }) => subscriptions);
    }
    get pings() {
      return this.sent.filter((text) => text === PING).length;
    }
  };
}

export const PING = '{"type":"ping"}';

/** What a browser tells about itself: listeners by event, and which of them may be told. */
export class FakeTarget {
  listeners = new Map();
  addEventListener(event, handler) {
    this.listeners.set(event, [...(this.listeners.get(event) ?? []), handler]);
  }
  removeEventListener(event, handler) {
    this.listeners.set(event, this.listeners.get(event).filter((other) => other !== handler));
  }
  dispatch(event, value = {}) {
    for (const handler of this.listeners.get(event) ?? []) handler(value);
  }
  get count() {
    return [...this.listeners.values()].flat().length;
  }
}

/** A client under test, its clock, its sockets and all that it said. */
export async function start(t, options = {}) {
  const clock = new Clock();
  t.after(() => clock.restore());
  // The longest delay, but for those who want to see others.
  Math.random = () => 1;
  const Socket = options.WebSocket ?? fakeWebSocket();
  const client = new Crieur('ws://test/', { ...options, WebSocket: Socket });
  const statuses = [];
  const errors = [];
  const notifications = [];
  const inForce = [];
  const continuity = [];
  client.on('status', (change) => statuses.push(change));
  client.on('error', (error) => errors.push(error));
  client.on('notification', (message, text) => notifications.push({ message, text }));
  client.on('subscribed', (event) => inForce.push(event));
  client.on('resumed', ({ missed }) => continuity.push(`resumed: ${missed}`));
  client.on('gap', ({ reason }) => continuity.push(`gap: ${reason}`));
  await settle();
  return {
    clock,
    Socket,
    client,
    statuses,
    errors,
    notifications,
    /** What `subscribed` has said. */
    inForce,
    /** What `resumed` and `gap` have said. */
    continuity,
    get names() {
      return statuses.map(({ status }) => status);
    },
    get socket() {
      return Socket.last;
    },
    get count() {
      return Socket.all.length;
    },
  };
}
