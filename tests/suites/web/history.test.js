// The client against the real server, its history and what is left of that: what was missed comes by
// itself, or the client says that something may be missing.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, test } from 'node:test';
import WebSocket, { WebSocketServer } from 'ws';
import { Link, Publisher, Server, clientToken, connect, nextStatus, secretFile, temporaryFolder, until } from './server.js';

/** A client with the list `list`, and all that it says, in a form that is easy to compare. */
async function user(t, url, list = ['a'], options = {}) {
  const client = connect(t, url, options);
  const said = [];
  const ids = [];
  client.on('subscribed', ({ isResumed }) => said.push(isResumed ? 'subscribed, resumed' : 'subscribed'));
  client.on('resumed', ({ missed }) => said.push(`resumed, ${missed} missed`));
  client.on('gap', ({ reason }) => said.push(`gap: ${reason}`));
  client.on('error', ({ code }) => said.push(`error: ${code}`));
  client.on('notification', ({ id, notification }) => {
    said.push(notification.n);
    ids.push(id);
    assert.ok(id === undefined || client.position === id, 'the position moves before the handlers hear of it');
  });
  await client.subscribe(list);
  return { client, said, ids, saidBefore: 0 };
}

/** Waits until the last that it has said, since it was away, is `what`. */
async function says(user, what) {
  const isSaid = () => user.said.length > user.saidBefore && user.said.at(-1) === what;
  await until(isSaid, `it says ${what}`).catch(({ message }) => assert.fail(`${message}; it said ${user.said.join('; ')}`));
}

/** A server, a way to it that can be cut, and what publishes there. */
async function begin(t, ...flags) {
  const server = await Server.start(t, ...flags);
  const link = await Link.to(t, server);
  const publisher = await Publisher.connect(server);
  t.after(() => publisher.close());
  const publish = async (n, channel = 'a', options = {}, others = {}) => {
    const receipt = await publisher.publish({ channel, n, ...others }, undefined, options);
    assert.equal(receipt.type, 'published', JSON.stringify(receipt));
    return receipt.id;
  };
  return { server, link, publish };
}

/** Cuts the link, and lets the clients come back once `meanwhile` is done. */
async function whileAway(link, users, meanwhile = () => {}) {
  link.isDown = true;
  await breaks(users, () => link.cut());
  await meanwhile();
  link.isDown = false;
  for (const { client } of users) client.wake();
}

/** Does `how`, which breaks the connections of `users`, and waits until they know. */
async function breaks(users, how) {
  const waiting = users.map(({ client }) => nextStatus(client, 'waiting'));
  for (const user of users) user.saidBefore = user.said.length;
  await how();
  await Promise.all(waiting);
}

/** Starts the server again, and has the client come back. */
async function restart(server, user) {
  await breaks([user], () => server.kill());
  await server.start();
  user.client.wake();
}

/** Waits until the server can't resume from `id` any more. */
async function untilExpired(server, id, channel = 'a') {
  const socket = new WebSocket(server.url);
  await once(socket, 'open');
  let reason;
  socket.on('message', (text) => {
    const message = JSON.parse(text);
    if (message.type === 'subscribed') ({ reason } = message);
  });
  const isExpired = () => {
    socket.send(JSON.stringify({ sender: 'client', subscriptions: [channel], since: id }));
    return reason === 'expired';
  };
  await until(isExpired, `${id} is expired`);
  socket.close();
}

/** A constructor of sockets that remembers them, and what each has sent and received. */
function recordingWebSocket() {
  return class RecordingWebSocket extends WebSocket {
    static all = [];
    sent = [];
    received = [];
    constructor(url) {
      super(url);
      RecordingWebSocket.all.push(this);
      this.on('message', (text) => this.received.push(JSON.parse(text)));
    }
    send(text) {
      this.sent.push(JSON.parse(text));
      super.send(text);
    }
  };
}

describe('what was missed comes by itself', () => {
  test('behind a cut link', async (t) => {
    const { link, publish } = await begin(t);
    const anna = await user(t, link.url);
    await publish(1);
    await says(anna, 1);
    for (const round of [10, 20]) {
      await whileAway(link, [anna], async () => {
        await publish(round);
        await publish(0, 'of no interest');
        await publish(round + 1);
      });
      await says(anna, 'resumed, 2 missed');
      // And on it goes from there.
      await publish(round + 2);
      await says(anna, round + 2);
    }
    const back = (round) => ['subscribed, resumed', round, round + 1, 'resumed, 2 missed', round + 2];
    assert.deepEqual(anna.said, ['subscribed', 1, ...back(10), ...back(20)]);
    assert.equal(anna.client.position, anna.ids.at(-1));
    assert.equal(new Set(anna.ids).size, 7);
  });

  test('nothing, where nothing was missed', async (t) => {
    const { link, publish } = await begin(t);
    const anna = await user(t, link.url);
    await whileAway(link, [anna]);
    await says(anna, 'resumed, 0 missed');
    await publish(0, 'of no interest');
    const last = await publish(0, 'of no interest either');
    await whileAway(link, [anna]);
    await says(anna, 'resumed, 0 missed');
    assert.deepEqual(anna.said, ['subscribed', ...Array(2).fill(['subscribed, resumed', 'resumed, 0 missed']).flat()]);
    assert.equal(anna.client.position, last, 'it is known to have nothing up to there');
  });

  test('however often the replay breaks, wherever that is', async (t) => {
    const { link, publish } = await begin(t);
    const anna = await user(t, link.url);
    const { client, said } = anna;
    let published = 0;
    const publishSome = async (count) => {
      for (const end = published + count; published < end; published += 1) {
        await publish(published, 'a', {}, { text: 'x'.repeat((published * 37) % 300) });
      }
    };
    await publishSome(1);
    await says(anna, 0);
    let breaks = 0;
    const isOver = () => said.some((what) => String(what).startsWith('resumed'));
    client.on('status', ({ status }) => {
      if (status !== 'waiting' || link.isDown) return;
      breaks += 1;
      // In the upgrade, in the answer to the list, right behind that, and in the middle of notifications.
      link.bytesMax = breaks % 2 === 0 ? 150 + 5 * breaks : 1_500 + 101 * (breaks % 20);
      client.wake();
    });
    link.bytesMax = 1_500;
    await whileAway(link, [anna], () => publishSome(200));
    // And while it is being caught up.
    while (!isOver()) {
      const before = breaks;
      await publishSome(2);
      await until(() => breaks > before || isOver(), 'another break');
      if (breaks >= 60) link.bytesMax = Infinity;
    }
    link.bytesMax = Infinity;
    await publishSome(1);
    await until(() => said.at(-1) === published - 1, 'the last one');
    assert.ok(breaks >= 40, `the replay broke only ${breaks} times`);
    assert.deepEqual(said.filter((what) => typeof what === 'number'), Array.from({ length: published }, (_, n) => n));
    assert.ok(said.slice(1).every((what) => typeof what === 'number' || what === 'subscribed, resumed' || what.startsWith('resumed')), said.join('; '));
    // What is missed is what this connection has brought.
    const over = said.findIndex((what) => String(what).startsWith('resumed'));
    const began = said.lastIndexOf('subscribed, resumed', over);
    assert.equal(said[over], `resumed, ${over - began - 1} missed`);
  });

  test('where it pings in the middle of a replay: the answer does not take it past the rest', async (t) => {
    const { link, publish } = await begin(t);
    const WebSocket = recordingWebSocket();
    const anna = await user(t, link.url, ['a'], { WebSocket });
    const count = 80;
    const text = 'x'.repeat(256 * 1024);
    // More than the buffers on the way take: the server is in the middle of it when it reads the ping.
    anna.client.on('notification', ({ notification }) => {
      if (notification.n !== 2) return;
      link.stall();
      anna.client.wake();
    });
    await whileAway(link, [anna], async () => {
      for (let n = 0; n < count; n += 1) await publish(n, 'a', {}, { text });
    });
    await until(() => anna.said.includes(2), 'the ping');
    await publish(count);
    link.resume();
    await until(() => WebSocket.all.at(-1).received.some(({ type }) => type === 'pong'), 'the pong');
    assert.ok(anna.said.length < count, 'the replay was over: this shows nothing');
    await whileAway(link, [anna]);
    await until(() => String(anna.said.at(-1)).startsWith('resumed'), 'all has come');
    assert.deepEqual(anna.said.filter((what) => typeof what === 'number'), [...Array(count + 1).keys()]);
  });

  test('over a restart of a server that keeps its history', async (t) => {
    const { server, publish } = await begin(t, '--history-directory', temporaryFolder(t));
    const anna = await user(t, server.url);
    await publish(1);
    await says(anna, 1);
    await restart(server, anna);
    await says(anna, 'resumed, 0 missed');
    assert.deepEqual(anna.said, ['subscribed', 1, 'subscribed, resumed', 'resumed, 0 missed']);
  });

  test('of a list that was changed meanwhile: but what is new in it is at the API', async (t) => {
    const { link, publish } = await begin(t);
    const anna = await user(t, link.url, ['a', 'b']);
    await publish(1, 'a');
    await says(anna, 1);
    let answer;
    await whileAway(link, [anna], async () => {
      await publish(2, 'a');
      await publish(3, 'b');
      await publish(4, 'c');
      answer = anna.client.subscribe(['c', 'a']);
      await publish(5, 'a');
    });
    await says(anna, 'resumed, 3 missed');
    assert.equal((await answer).subscriptions, 2);
    assert.deepEqual(anna.said, ['subscribed', 1, 'subscribed', 2, 4, 5, 'resumed, 3 missed']);
    // That is the list that goes on from now on.
    await whileAway(link, [anna], () => publish(6, 'c'));
    await says(anna, 'resumed, 1 missed');
    assert.deepEqual(anna.said.slice(-3), ['subscribed, resumed', 6, 'resumed, 1 missed']);
  });

  test('of a list that was changed online, and that was answered or not', async (t) => {
    const { link, publish } = await begin(t);
    const anna = await user(t, link.url);
    await anna.client.subscribe(['a', 'b']);
    await whileAway(link, [anna], () => publish(1, 'b'));
    await says(anna, 'resumed, 1 missed');
    assert.deepEqual(anna.said, ['subscribed', 'subscribed', 'subscribed, resumed', 1, 'resumed, 1 missed']);
    await anna.client.subscribe(['a', 'd']);
    assert.equal(anna.said.at(-1), 'subscribed', 'the connection was resumed, this list is a new one');
    // The next list never arrives: it is another one that comes back.
    link.hold();
    anna.client.subscribe(['a', 'c']);
    link.held = null;
    await whileAway(link, [anna], () => publish(2, 'c'));
    await says(anna, 'resumed, 1 missed');
    assert.deepEqual(anna.said.slice(-3), ['subscribed', 2, 'resumed, 1 missed']);
  });

  test('to a client that is slower than its queue', async (t) => {
    const { link, publish } = await begin(t, '--send-queue-bytes', '65536');
    const anna = await user(t, link.url);
    link.stall();
    const count = 100;
    const text = 'x'.repeat(256 * 1024);
    for (let n = 0; n < count; n += 1) await publish(n, 'a', {}, { text });
    assert.ok(anna.said.length < count);
    link.resume();
    await says(anna, count - 1);
    assert.deepEqual(anna.said, ['subscribed', ...Array(count).keys()]);
  });
});

describe('a position outlives its client', () => {
  test('in a file, over a cold start', async (t) => {
    const { link, publish } = await begin(t);
    const file = path.join(temporaryFolder(t), 'position');
    const first = await user(t, link.url);
    first.client.on('notification', () => writeFileSync(file, first.client.position));
    await publish(1);
    await publish(2);
    await says(first, 2);
    first.client.close();
    await publish(3);
    await publish(4);
    const second = await user(t, link.url, ['a'], { since: readFileSync(file, 'utf8') });
    await says(second, 'resumed, 2 missed');
    assert.deepEqual(second.said, ['subscribed, resumed', 3, 4, 'resumed, 2 missed']);
    await whileAway(link, [second], () => publish(5));
    await says(second, 'resumed, 1 missed');
  });

  test('which was closed in the middle of a replay', async (t) => {
    const { link, publish } = await begin(t);
    const first = await user(t, link.url);
    for (let n = 1; n <= 9; n += 1) await publish(n);
    await says(first, 9);
    const [since] = first.ids;
    const second = await user(t, link.url, ['a'], { since });
    // In the handler, as where an app is left while it shows this one.
    const third = connect(t, link.url, { since });
    third.on('notification', ({ notification }) => notification.n === 5 && third.close());
    await third.subscribe(['a']);
    await until(() => third.status === 'closed', 'the third is closed');
    const fourth = await user(t, link.url, ['a'], { since: third.position });
    await says(fourth, 'resumed, 4 missed');
    assert.deepEqual(fourth.said, ['subscribed, resumed', 6, 7, 8, 9, 'resumed, 4 missed']);
    await says(second, 'resumed, 8 missed');
  });

  test('of a page that was rendered with it', async (t) => {
    const { server, link, publish } = await begin(t);
    await publish(1);
    const { id } = await (await fetch(`${server.page}position`)).json();
    const rendered = [1];
    await publish(2);
    await publish(3);
    const page = await user(t, link.url, ['a'], { since: id });
    await says(page, 'resumed, 2 missed');
    assert.deepEqual([...rendered, ...page.said], [1, 'subscribed, resumed', 2, 3, 'resumed, 2 missed']);
  });
});

describe('a gap is said', () => {
  /** Comes back, and is told; goes on from there, without another word. */
  async function isTold(reason, link, anna, publish, meanwhile) {
    await whileAway(link, [anna], meanwhile);
    await says(anna, 'subscribed');
    await publish(7);
    await says(anna, 7);
    assert.deepEqual(anna.said.slice(anna.saidBefore), [`gap: ${reason}`, 'subscribed', 7]);
  }

  test('unknown: the server has started again, without its history', async (t) => {
    const { server, link, publish } = await begin(t);
    const anna = await user(t, link.url);
    await publish(1);
    await says(anna, 1);
    await restart(server, anna);
    await says(anna, 'subscribed');
    assert.deepEqual(anna.said, ['subscribed', 1, 'gap: unknown', 'subscribed']);
    const publisher = await Publisher.connect(server);
    await whileAway(link, [anna], () => publisher.publish({ channel: 'a', n: 2 }));
    await says(anna, 'resumed, 1 missed');
    assert.deepEqual(anna.said.slice(4), ['subscribed, resumed', 2, 'resumed, 1 missed']);
  });

  test('unknown: the position that it was given is of another server', async (t) => {
    const { link, publish } = await begin(t);
    const anna = await user(t, link.url, ['a'], { since: '0123456789abcdef-7' });
    assert.deepEqual(anna.said, ['gap: unknown', 'subscribed']);
    await whileAway(link, [anna], () => publish(1));
    await says(anna, 'resumed, 1 missed');
  });

  test('expired: it was away for too long', async (t) => {
    const { server, link, publish } = await begin(t, '--history-seconds', '1');
    const anna = await user(t, link.url);
    await publish(1);
    await says(anna, 1);
    await isTold('expired', link, anna, publish, async () => {
      await publish(2);
      await untilExpired(server, anna.client.position);
    });
    // From there it can go on.
    await whileAway(link, [anna], () => publish(8));
    await says(anna, 'resumed, 1 missed');
  });

  test('expired: more was published than the history holds', async (t) => {
    const { link, publish } = await begin(t, '--history-bytes', '100000');
    const anna = await user(t, link.url);
    await publish(1);
    await says(anna, 1);
    await isTold('expired', link, anna, publish, async () => {
      for (let n = 2; n < 10; n += 1) await publish(n, 'a', {}, { text: 'x'.repeat(50_000) });
    });
  });

  for (const flag of ['--history-seconds', '--history-bytes']) {
    test(`expired: the history is off (${flag} 0)`, async (t) => {
      const { link, publish } = await begin(t, flag, '0');
      const anna = await user(t, link.url);
      await publish(1);
      await says(anna, 1);
      assert.equal(anna.client.position, anna.ids[0], 'ids are told all the same');
      for (let round = 0; round < 2; round += 1) await isTold('expired', link, anna, publish, () => publish(2));
    });
  }

  test('expired: it was slower than its queue, and than the history', async (t) => {
    const { link, publish } = await begin(t, '--send-queue-bytes', '65536', '--history-bytes', '1000000');
    const anna = await user(t, link.url);
    const waiting = nextStatus(anna.client, 'waiting');
    link.stall();
    for (let n = 0; n < 100; n += 1) await publish(n, 'a', {}, { text: 'x'.repeat(256 * 1024) });
    link.resume();
    const { code, reason } = await waiting;
    assert.deepEqual([code, reason], [1013, 'slow-consumer']);
    const got = anna.said.length - 1;
    await says(anna, 'subscribed');
    assert.deepEqual(anna.said, ['subscribed', ...Array(got).keys(), 'gap: expired', 'subscribed']);
  });

  test('forbidden: the token withholds the history', async (t) => {
    const key = '0123456789abcdef0123456789abcdef';
    const { link, publish } = await begin(t, '--client-key-file', secretFile(t, key));
    const withheld = await user(t, link.url, ['a'], { token: () => clientToken(key, ['a'], 60, { history: false }) });
    await publish(1);
    await says(withheld, 1);
    assert.equal(withheld.client.position, withheld.ids[0]);
    for (let round = 0; round < 2; round += 1) await isTold('forbidden', link, withheld, publish, () => publish(2));
    const allowed = await user(t, link.url, ['a'], { token: () => clientToken(key, ['a'], 60), since: withheld.ids[0] });
    await says(allowed, 'resumed, 4 missed');
  });

  test('no-history: resume is off', async (t) => {
    const { link, publish } = await begin(t);
    const WebSocket = recordingWebSocket();
    const anna = await user(t, link.url, ['a'], { WebSocket, resume: false });
    await publish(1);
    await says(anna, 1);
    for (let round = 0; round < 2; round += 1) await isTold('no-history', link, anna, publish, () => publish(2));
    assert.equal(anna.client.position, null);
    assert.deepEqual(anna.ids, [undefined, undefined, undefined]);
    const lists = WebSocket.all.flatMap(({ sent }) => sent);
    assert.deepEqual(lists, Array(lists.length).fill({ sender: 'client', subscriptions: ['a'] }));
  });
});

describe('an older server, which numbers nothing', () => {
  /** Answers as sections 1 to 5 of the protocol say. */
  async function startOlder(t, port = 0) {
    const server = new WebSocketServer({ port, host: '127.0.0.1' });
    await once(server, 'listening');
    const lists = new Map();
    server.on('connection', (socket) => {
      socket.on('message', (text) => {
        const { type, sender, subscriptions } = JSON.parse(text);
        if (sender === 'client') {
          lists.set(socket, subscriptions);
          socket.send(JSON.stringify({ type: 'subscribed', subscriptions: subscriptions.length, heartbeat: 25 }));
        } else if (type === 'ping') {
          socket.send('{"type":"pong"}');
        }
      });
      socket.on('close', () => lists.delete(socket));
    });
    const older = {
      url: `ws://127.0.0.1:${server.address().port}/`,
      port: server.address().port,
      publish(n, channel) {
        for (const [socket, list] of lists) {
          if (list.includes(channel)) socket.send(JSON.stringify({ type: 'notification', notification: { channel, n } }));
        }
      },
      async stop() {
        for (const socket of server.clients) socket.terminate();
        server.close();
        await once(server, 'close');
      },
    };
    t.after(() => server.close());
    return older;
  }

  test('each connection may have missed something', async (t) => {
    const older = await startOlder(t);
    const link = await Link.to(t, older);
    const WebSocket = recordingWebSocket();
    const anna = await user(t, link.url, ['a'], { WebSocket });
    older.publish(1, 'a');
    await says(anna, 1);
    for (let round = 0; round < 2; round += 1) {
      await whileAway(link, [anna], () => older.publish(2, 'a'));
      await says(anna, 'subscribed');
      older.publish(3, 'a');
      await says(anna, 3);
    }
    assert.deepEqual(anna.said, ['subscribed', 1, ...Array(2).fill(['gap: no-history', 'subscribed', 3]).flat()]);
    assert.equal(anna.client.position, null);
    anna.client.wake();
    await until(() => anna.client.roundTrip !== null, 'a pong');
    assert.equal(anna.client.position, null);
  });

  test('an upgrade of the server, and the way back', async (t) => {
    const { server, link, publish } = await begin(t);
    const anna = await user(t, link.url);
    await publish(1);
    await says(anna, 1);
    await breaks([anna], () => server.kill());
    const older = await startOlder(t, server.port);
    anna.client.wake();
    await says(anna, 'subscribed');
    assert.equal(anna.client.position, null, 'this one is no position of an older server');
    older.publish(2, 'a');
    await says(anna, 2);
    await breaks([anna], () => older.stop());
    await server.start();
    anna.client.wake();
    await says(anna, 'subscribed');
    assert.deepEqual(anna.said, ['subscribed', 1, 'gap: no-history', 'subscribed', 2, 'gap: no-history', 'subscribed']);
    await whileAway(link, [anna]);
    await says(anna, 'resumed, 0 missed');
  });
});

describe('notifications that are not kept', () => {
  const keep = false;

  test('have no id, and the position stays where it is', async (t) => {
    const { link, publish } = await begin(t);
    const anna = await user(t, link.url);
    await publish(1);
    await says(anna, 1);
    await publish(2, 'a', { keep });
    await says(anna, 2);
    assert.deepEqual(anna.ids.slice(1), [undefined]);
    assert.equal(anna.client.position, anna.ids[0]);
    await whileAway(link, [anna], async () => {
      await publish(3, 'a', { keep });
      await publish(4);
    });
    await says(anna, 'resumed, 1 missed');
    assert.deepEqual(anna.said, ['subscribed', 1, 2, 'subscribed, resumed', 4, 'resumed, 1 missed']);
  });

  test('do not let a client fall out of the history, and silence does not either', async (t) => {
    const { server, link, publish } = await begin(t, '--ping-interval', '1', '--history-seconds', '3');
    const users = [await user(t, link.url, ['quiet']), await user(t, link.url, ['typing'])];
    const [first] = users.map(({ client }) => client.position);
    await publish(0, 'of others');
    // One of them gets such a notification all the time, the other gets nothing.
    let isOver = false;
    const flow = (async () => {
      while (!isOver) {
        await publish('typing', 'typing', { keep });
        await publish(0, 'of others');
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    })();
    await untilExpired(server, first);
    isOver = true;
    await flow;
    for (const anna of users) {
      assert.notEqual(anna.client.position, first, 'the pongs moved it');
    }
    await whileAway(link, users, async () => {
      await publish(1, 'quiet');
      await publish(1, 'typing');
    });
    for (const anna of users) {
      await says(anna, 'resumed, 1 missed');
      assert.deepEqual(anna.said.slice(anna.saidBefore), ['subscribed, resumed', 1, 'resumed, 1 missed']);
    }
  });
});

describe('an app of React Native', () => {
  /** `AppState`, as far as it is used. */
  class FakeAppState {
    currentState = 'active';
    #handlers = new Set();
    addEventListener(event, handler) {
      assert.equal(event, 'change');
      this.#handlers.add(handler);
      return { remove: () => this.#handlers.delete(handler) };
    }
    become(state) {
      this.currentState = state;
      for (const handler of this.#handlers) handler(state);
    }
  }

  test('that was in the background has everything after one round trip', async (t) => {
    // The longest delay: it is the app in front that ends it.
    t.mock.method(Math, 'random', () => 0.99);
    t.mock.method(globalThis, 'fetch', () => assert.fail('something was fetched'));
    const { link, publish } = await begin(t);
    const appState = new FakeAppState();
    const WebSocket = recordingWebSocket();
    const app = await user(t, link.url, [{ package: 'chat', page: 'room' }], { WebSocket, appState });
    const say = (n) => publish(n, 'x', {}, { package: 'chat', page: 'room' });
    await say(1);
    await says(app, 1);
    const since = app.client.position;

    appState.become('background');
    const waiting = nextStatus(app.client, 'waiting');
    link.cut();
    const { retryAt } = await waiting;
    assert.ok(retryAt > Date.now() + 20_000);
    for (const n of [2, 3, 4]) await say(n);
    assert.equal(WebSocket.all.length, 1);

    appState.become('active');
    await says(app, 'resumed, 3 missed');
    assert.deepEqual(app.said, ['subscribed', 1, 'subscribed, resumed', 2, 3, 4, 'resumed, 3 missed']);
    assert.equal(WebSocket.all.length, 2);
    const [, { sent, received }] = WebSocket.all;
    assert.deepEqual(sent, [{ sender: 'client', subscriptions: [{ package: 'chat', page: 'room' }], since }]);
    assert.deepEqual(received.map(({ type }) => type), ['subscribed', 'notification', 'notification', 'notification', 'caught-up']);
  });
});
