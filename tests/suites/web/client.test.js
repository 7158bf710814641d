// The client's state machine, on a clock and a socket of the test's own.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Crieur, CrieurError } from '@crieur/client';
import { Clock, FakeTarget, fakeWebSocket, settle, start } from './fakes.js';

// Any of these would be a mistake of the client.
process.on('unhandledRejection', (error) => {
  throw new Error('an unhandled rejection', { cause: error });
});

/** A property of the global object for the time of a test. */
function define(t, name, value) {
  const before = Object.getOwnPropertyDescriptor(globalThis, name);
  Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  t.after(() => {
    if (before) Object.defineProperty(globalThis, name, before);
    else delete globalThis[name];
  });
}

function definePage(t, { onLine = true, visibilityState = 'visible' } = {}) {
  const window = new FakeTarget();
  const page = Object.assign(new FakeTarget(), { visibilityState });
  define(t, 'addEventListener', window.addEventListener.bind(window));
  define(t, 'removeEventListener', window.removeEventListener.bind(window));
  define(t, 'navigator', { onLine });
  define(t, 'document', page);
  return { window, page };
}

describe('connecting', () => {
  test('the first try is at once, and handlers that come right behind miss nothing', async (t) => {
    const run = await start(t);
    assert.equal(run.count, 1);
    assert.equal(run.socket.url, 'ws://test/');
    assert.deepEqual(run.names, ['connecting']);
    run.socket.open();
    assert.deepEqual(run.names, ['connecting', 'online']);
    assert.equal(run.client.status, 'online');
  });

  test('a client that is closed at once opens no socket', async (t) => {
    const clock = new Clock();
    t.after(() => clock.restore());
    const Socket = fakeWebSocket();
    new Crieur('ws://test/', { WebSocket: Socket }).close();
    await clock.pass(60_000);
    assert.equal(Socket.all.length, 0);
    assert.equal(clock.pending, 0);
  });

  test('a try has 5 s', async (t) => {
    const run = await start(t);
    await run.clock.pass(4_999);
    assert.equal(run.client.status, 'connecting');
    await run.clock.pass(1);
    assert.equal(run.client.status, 'waiting');
    assert.equal(run.statuses.at(-1).reason, 'timeout');
    assert.deepEqual(run.Socket.all[0].closed, []);
  });

  test('a late answer to a try that was given up changes nothing', async (t) => {
    const run = await start(t);
    const [socket] = run.Socket.all;
    await run.clock.pass(5_000);
    socket.isOpen = true;
    socket.onopen({});
    socket.onmessage({ data: 'x' });
    socket.onclose({ code: 1008 });
    socket.onerror({});
    assert.equal(run.client.status, 'waiting');
    assert.deepEqual(run.errors, []);
  });

  test('a URL that is none is the end, with an error', async (t) => {
    const run = await start(t, {
      WebSocket: class {
        constructor() {
          throw new SyntaxError('no URL');
        }
      },
    });
    assert.equal(run.client.status, 'closed');
    assert.deepEqual(run.errors.map(({ code }) => code), ['bad-url']);
    assert.equal(run.clock.pending, 0);
  });

  test('a constructor that throws something else is a try that failed', async (t) => {
    let tries = 0;
    const run = await start(t, {
      WebSocket: class {
        constructor() {
          tries += 1;
          throw new Error('not now');
        }
      },
    });
    assert.equal(run.client.status, 'waiting');
    await run.clock.pass(500);
    assert.equal(tries, 2);
    run.client.close();
    assert.equal(run.clock.pending, 0);
  });

  test('without a WebSocket the constructor says so', (t) => {
    define(t, 'WebSocket', undefined);
    assert.throws(() => new Crieur('ws://test/'), TypeError);
  });

  test('the global WebSocket is the default', async (t) => {
    const clock = new Clock();
    t.after(() => clock.restore());
    const Socket = fakeWebSocket();
    define(t, 'WebSocket', Socket);
    const client = new Crieur('ws://test/');
    await settle();
    assert.equal(Socket.all.length, 1);
    client.close();
  });
});

describe('backoff', () => {
  test('0.5 s, doubled up to 30 s, for ever', async (t) => {
    const run = await start(t);
    const delays = [];
    for (let round = 0; round < 40; round += 1) {
      run.socket.end(1006);
      delays.push(run.client.retryAt - run.clock.now);
      await run.clock.pass(delays.at(-1) - 1);
      assert.equal(run.client.status, 'waiting');
      await run.clock.pass(1);
      assert.equal(run.client.status, 'connecting');
    }
    assert.deepEqual(delays.slice(0, 8), [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
    assert.ok(delays.slice(8).every((delay) => delay === 30_000));
    assert.equal(run.count, 41);
  });

  test('the jitter is full: anything from nothing to the limit, evenly', async (t) => {
    const run = await start(t);
    for (let round = 0; round < 7; round += 1) {
      run.socket.end(1006);
      await run.clock.pass(run.client.retryAt - run.clock.now);
    }
    const delays = [];
    for (let round = 0; round < 100; round += 1) {
      Math.random = () => (((round * 37) % 100) + 0.5) / 100;
      run.socket.end(1006);
      delays.push(run.client.retryAt - run.clock.now);
      await run.clock.pass(delays.at(-1));
    }
    delays.sort((a, b) => a - b);
    assert.deepEqual(delays, Array.from({ length: 100 }, (_, at) => 150 + at * 300));
  });

  test('a connection that lived is followed by a try at once', async (t) => {
    const run = await start(t);
    run.socket.accept();
    await run.clock.pass(5_000);
    run.socket.end(1006);
    assert.equal(run.count, 2);
    assert.deepEqual(run.names, ['connecting', 'online', 'connecting']);
    // And that one counts: the delays begin again behind it.
    run.socket.end(1006);
    assert.equal(run.client.retryAt - run.clock.now, 500);
  });

  async function failThreeTimes(run) {
    for (let round = 0; round < 3; round += 1) {
      run.socket.end(1006);
      await run.clock.pass(run.client.retryAt - run.clock.now);
    }
    assert.equal(run.client.status, 'connecting');
  }

  test('the counter stays where a connection lives for less than 5 s', async (t) => {
    const run = await start(t);
    await failThreeTimes(run);
    run.socket.accept();
    await run.clock.pass(4_999);
    run.socket.end(1006);
    assert.equal(run.client.retryAt - run.clock.now, 4_000);
  });

  test('the counter stays where the subscription was not acknowledged', async (t) => {
    const run = await start(t);
    await failThreeTimes(run);
    run.socket.open();
    run.socket.receive({ type: 'notification', notification: {} });
    await run.clock.pass(7_000);
    run.socket.end(1006);
    assert.equal(run.client.retryAt - run.clock.now, 4_000);
  });

  test('an acknowledgement counts for its own connection only', async (t) => {
    const run = await start(t);
    run.socket.accept();
    await run.clock.pass(5_000);
    run.socket.end(1006);
    run.socket.open();
    await run.clock.pass(7_000);
    run.socket.end(1006);
    assert.equal(run.client.retryAt - run.clock.now, 500);
  });

  test('the counter goes back after 5 s and an acknowledgement', async (t) => {
    const run = await start(t);
    await failThreeTimes(run);
    run.socket.accept();
    await run.clock.pass(5_000);
    run.socket.end(1006);
    assert.equal(run.client.status, 'connecting');
  });
});

describe('close codes', () => {
  for (const code of [1000, 1001, 1002, 1003, 1005, 1006, 1007, 1009, 1011, 1012, 1013, 4000]) {
    test(`${code} comes back`, async (t) => {
      const run = await start(t);
      run.socket.accept();
      run.socket.end(code);
      assert.equal(run.client.status, 'waiting');
      await run.clock.pass(500);
      assert.equal(run.count, 2);
      assert.deepEqual(run.errors, []);
    });
  }

  for (const word of ['forbidden', 'invalid-notification']) {
    test(`1008 ${word} stops, with an error, and leaves nothing`, async (t) => {
      const run = await start(t);
      const late = run.client.subscribe(['a']);
      run.socket.open();
      run.socket.end(1008, `{"reason":"${word}","retry":4200}`);
      assert.equal(run.client.status, 'closed');
      assert.deepEqual(run.errors.map(({ code }) => code), ['refused']);
      assert.equal(run.statuses.at(-1).code, 1008);
      assert.equal(run.statuses.at(-1).reason, word);
      await assert.rejects(late, { code: 'refused' });
      await run.clock.pass(600_000);
      assert.equal(run.count, 1);
      assert.equal(run.clock.pending, 0);
    });
  }

  for (const [reason, delay] of [
    ['{"reason":"unfinished-message","retry":4200}', 4_200],
    ['{"reason":"of-a-newer-server"}', 500],
    ['{"reason":["forbidden"]}', 500],
    ['{"retry":100}', 100],
    ['forbidden', 500],
    ['null', 500],
    ['', 500],
    [undefined, 500],
  ]) {
    test(`1008 with the reason ${reason} comes back`, async (t) => {
      const run = await start(t);
      const answer = run.client.subscribe(['a']);
      run.socket.open();
      run.socket.onclose({ code: 1008, reason });
      assert.equal(run.client.status, 'waiting');
      assert.equal(run.client.retryAt - run.clock.now, delay);
      await run.clock.pass(delay);
      run.socket.accept();
      assert.equal(run.count, 2);
      assert.equal((await answer).subscriptions, 1);
      assert.deepEqual(run.errors, []);
    });
  }

  test('the retry of the server is obeyed, without jitter', async (t) => {
    const run = await start(t);
    run.socket.accept();
    await run.clock.pass(6_000);
    run.socket.end(1001, '{"reason":"shutdown","retry":4200}');
    assert.deepEqual(run.statuses.at(-1), {
      status: 'waiting',
      retryAt: run.clock.now + 4_200,
      code: 1001,
      reason: 'shutdown',
    });
    await run.clock.pass(4_199);
    assert.equal(run.count, 1);
    await run.clock.pass(1);
    assert.equal(run.count, 2);
  });

  test('nothing comes before the time that the server gave', async (t) => {
    const run = await start(t);
    run.socket.accept();
    run.socket.end(1013, '{"reason":"overload","retry":9000}');
    await run.clock.pass(8_999);
    run.client.wake();
    assert.equal(run.count, 1);
    await run.clock.pass(1);
    assert.equal(run.count, 2);
    // The next wait is this client's own again.
    run.socket.end(1006);
    run.client.wake();
    assert.equal(run.count, 3);
  });

  test('a retry that is too long is cut, one that is none is not obeyed', async (t) => {
    for (const [retry, delay] of [['1e12', 600_000], ['-1', 500], ['"7"', 500], ['null', 500], ['1e999', 600_000], ['250', 250]]) {
      const run = await start(t);
      run.socket.open();
      run.socket.end(1001, `{"reason":"shutdown","retry":${retry}}`);
      assert.equal(run.client.retryAt - run.clock.now, delay, retry);
      run.client.close();
    }
  });

  test('a reason that is no JSON is shown as it is', async (t) => {
    const run = await start(t);
    run.socket.open();
    run.socket.end(1001, 'going away');
    assert.equal(run.statuses.at(-1).reason, 'going away');
    await run.clock.pass(500);
    // React Native gives undefined.
    run.socket.end(undefined, undefined);
    assert.equal(run.client.status, 'waiting');
  });
});

describe('tokens', () => {
  /** A source that gives t1, t2, …, and remembers how often. */
  function tokens() {
    const source = () => `t${(source.asked += 1)}`;
    source.asked = 0;
    return source;
  }
  const tokenOf = (socket) => JSON.parse(socket.sent[0]).token;

  test('the token goes with the subscriptions, and is asked for once', async (t) => {
    const token = tokens();
    const run = await start(t, { token });
    run.socket.accept();
    assert.equal(tokenOf(run.socket), 't1');
    await run.clock.pass(5_000);
    run.socket.end(1006);
    run.socket.accept();
    assert.equal(tokenOf(run.socket), 't1');
    assert.equal(token.asked, 1);
  });

  for (const [code, word] of [[3000, 'unauthorized'], [3003, 'forbidden']]) {
    test(`${code} asks for a fresh token, and stops when that is refused too`, async (t) => {
      const run = await start(t, { token: tokens() });
      run.socket.open();
      run.socket.end(code, '{"reason":"expired","retry":100}');
      await run.clock.pass(100);
      run.socket.open();
      assert.equal(tokenOf(run.socket), 't2');
      assert.deepEqual(run.errors, []);
      run.socket.end(code);
      assert.equal(run.client.status, 'closed');
      assert.deepEqual(run.errors.map((error) => error.code), [word]);
      assert.equal(run.clock.pending, 0);
    });

    test(`${code} stops where there is no source of tokens`, async (t) => {
      const run = await start(t);
      run.socket.open();
      run.socket.end(code);
      assert.equal(run.client.status, 'closed');
      assert.deepEqual(run.errors.map((error) => error.code), [word]);
    });
  }

  test('a token that was taken may expire again and again', async (t) => {
    const token = tokens();
    const run = await start(t, { token });
    for (let round = 1; round <= 5; round += 1) {
      run.socket.accept();
      assert.equal(tokenOf(run.socket), `t${round}`);
      await run.clock.pass(6_000);
      run.socket.end(3000);
      await settle();
    }
    assert.equal(run.client.status, 'connecting');
    assert.deepEqual(run.errors, []);
  });

  test('a connection that breaks before its answer does not excuse the second refusal', async (t) => {
    const run = await start(t, { token: tokens() });
    run.socket.open();
    run.socket.end(3000);
    await run.clock.pass(500);
    run.socket.end(1006);
    await run.clock.pass(1_000);
    run.socket.open();
    run.socket.end(3000);
    assert.equal(run.client.status, 'closed');
  });

  test('a source that fails, throws or hangs is an error and another try', async (t) => {
    let asked = 0;
    const token = () => {
      asked += 1;
      if (asked === 1) throw new Error('thrown');
      if (asked === 2) return Promise.reject(new Error('rejected'));
      if (asked === 3) return new Promise(() => {});
      return Promise.resolve('late');
    };
    const run = await start(t, { token });
    assert.equal(run.client.status, 'waiting');
    assert.equal(run.statuses.at(-1).reason, 'token');
    await run.clock.pass(500);
    assert.equal(run.client.status, 'waiting');
    await run.clock.pass(1_000);
    assert.equal(run.client.status, 'connecting');
    await run.clock.pass(10_000);
    assert.equal(run.client.status, 'waiting');
    await run.clock.pass(2_000);
    run.socket.accept();
    assert.equal(tokenOf(run.socket), 'late');
    assert.deepEqual(run.errors.map(({ code }) => code), ['token', 'token', 'token']);
    assert.equal(run.count, 1);
  });

  const forbidden = { type: 'error', error: { code: 'forbidden', detail: 'subscriptions[0] is not allowed by the token' } };

  test('a set that the token does not allow is asked for with a fresh one', async (t) => {
    const run = await start(t, { token: tokens() });
    run.client.subscribe(['a']);
    run.socket.accept();
    await run.clock.pass(5_000);
    const answer = run.client.subscribe(['b']);
    run.socket.receive(forbidden);
    await settle();
    run.socket.accept();
    assert.equal(run.count, 2);
    assert.equal(tokenOf(run.socket), 't2');
    assert.deepEqual(run.socket.sets, [['b']]);
    assert.equal((await answer).subscriptions, 1);
    assert.deepEqual(run.errors, []);
  });

  test('a set that no token allows is refused, and the one before is in force again', async (t) => {
    const run = await start(t, { token: tokens() });
    run.client.subscribe(['a']);
    run.socket.accept();
    await run.clock.pass(5_000);
    const answer = run.client.subscribe(['b']);
    run.socket.receive(forbidden);
    await settle();
    run.socket.open();
    run.socket.receive(forbidden);
    await assert.rejects(answer, { code: 'forbidden' });
    assert.deepEqual(run.socket.sets, [['b'], ['a']]);
    run.socket.acknowledge();
    assert.deepEqual(run.errors.map(({ code }) => code), ['forbidden']);
    assert.equal(run.client.status, 'online');
  });

  test('no token makes a set valid', async (t) => {
    const token = tokens();
    const run = await start(t, { token });
    run.socket.accept();
    const answer = run.client.subscribe([{}]);
    run.socket.receive({ type: 'error', error: { code: 'invalid-subscription', detail: '…' } });
    await assert.rejects(answer, { code: 'invalid-subscription' });
    assert.equal(token.asked, 1);
    assert.equal(run.count, 1);
  });

  test('without a source of tokens a forbidden set is refused at once', async (t) => {
    const run = await start(t);
    run.socket.accept();
    const answer = run.client.subscribe(['b']);
    run.socket.receive(forbidden);
    await assert.rejects(answer, { code: 'forbidden' });
    assert.equal(run.count, 1);
  });

  test('a token that comes after close() opens nothing', async (t) => {
    let give;
    const run = await start(t, { token: () => new Promise((resolve) => (give = resolve)) });
    run.client.close();
    give('late');
    await run.clock.pass(60_000);
    assert.equal(run.count, 0);
    assert.equal(run.clock.pending, 0);
  });
});

describe('subscriptions', () => {
  test('what is asked for before it is online is sent once it is, and answered', async (t) => {
    const run = await start(t);
    const answer = run.client.subscribe(['a', { package: 'p', page: 'q' }]);
    run.socket.accept(7);
    assert.deepEqual(run.socket.sets, [['a', { package: 'p', page: 'q' }]]);
    assert.deepEqual(await answer, { subscriptions: 2, heartbeat: 7 });
    assert.equal(JSON.parse(run.socket.sent[0]).sender, 'client');
  });

  test('only the last set is sent, and its answer is for all who asked', async (t) => {
    const run = await start(t);
    const answers = [run.client.subscribe(['a']), run.client.subscribe(['b', 'c'])];
    run.socket.accept();
    assert.deepEqual(run.socket.sets, [['b', 'c']]);
    assert.deepEqual((await Promise.all(answers)).map(({ subscriptions }) => subscriptions), [2, 2]);
  });

  test('the list is taken as it is when it is given', async (t) => {
    const run = await start(t);
    const list = ['a'];
    run.client.subscribe(list);
    list.push('b');
    run.socket.accept();
    assert.deepEqual(run.socket.sets, [['a']]);
  });

  test('a client without subscriptions says so, to learn the heartbeat', async (t) => {
    const run = await start(t);
    run.socket.accept();
    assert.deepEqual(run.socket.sets, [[]]);
  });

  test('the set is renewed at each connection, once', async (t) => {
    const run = await start(t);
    run.client.subscribe(['a']);
    for (let round = 0; round < 3; round += 1) {
      run.socket.accept();
      await run.clock.pass(6_000);
      assert.deepEqual(run.socket.sets, [['a']]);
      run.socket.end(1006);
    }
    assert.equal(run.count, 4);
  });

  test('what was not answered when the connection broke is asked again', async (t) => {
    const run = await start(t);
    run.socket.accept();
    const answers = [run.client.subscribe(['a']), run.client.subscribe(['b'])];
    assert.deepEqual(run.socket.sets, [[], ['a'], ['b']]);
    run.socket.end(1006);
    await run.clock.pass(500);
    run.socket.accept();
    assert.deepEqual(run.socket.sets, [['b']]);
    assert.equal((await Promise.all(answers)).length, 2);
  });

  test('answers go to the calls that they belong to, in order', async (t) => {
    const run = await start(t);
    run.socket.accept();
    const answers = [run.client.subscribe(['a']), run.client.subscribe(['b', 'c'])];
    run.socket.receive({ type: 'subscribed', subscriptions: 1, heartbeat: 25 });
    run.socket.receive({ type: 'subscribed', subscriptions: 2, heartbeat: 25 });
    assert.deepEqual((await Promise.all(answers)).map(({ subscriptions }) => subscriptions), [1, 2]);
  });

  test('a set that is in force or under way is not sent again', async (t) => {
    const run = await start(t);
    run.client.subscribe(['a']);
    run.socket.open();
    const second = run.client.subscribe(['a']);
    run.socket.acknowledge();
    const third = run.client.subscribe(['a']);
    assert.deepEqual(await second, await third);
    assert.deepEqual(run.socket.sets, [['a']]);
  });

  test('a set that was in force before another is sent again', async (t) => {
    const run = await start(t);
    run.client.subscribe(['a']);
    run.socket.accept();
    run.client.subscribe(['b']);
    run.client.subscribe(['a']);
    assert.deepEqual(run.socket.sets, [['a'], ['b'], ['a']]);
  });

  test('a handler that subscribes as soon as it is online does it once', async (t) => {
    const run = await start(t);
    run.client.subscribe(['a']);
    run.client.on('status', ({ status }) => status === 'online' && run.client.subscribe(['a']));
    run.socket.accept();
    assert.deepEqual(run.socket.sets, [['a']]);
  });

  test('a set that the server does not take is refused, and the one before stays for good', async (t) => {
    const run = await start(t);
    run.client.subscribe(['a']);
    run.socket.accept();
    const bad = run.client.subscribe([{}]);
    run.socket.receive({ type: 'error', error: { code: 'invalid-subscription', detail: 'subscriptions[0].page is missing' } });
    await assert.rejects(bad, (error) => {
      assert.ok(error instanceof CrieurError);
      assert.equal(error.code, 'invalid-subscription');
      assert.equal(error.message, 'subscriptions[0].page is missing');
      return true;
    });
    assert.deepEqual(run.errors.map(({ code }) => code), ['invalid-subscription']);
    assert.equal(run.client.status, 'online');
    // It has kept it, so it isn't told again.
    assert.deepEqual(run.socket.sets, [['a'], [{}]]);
    await run.clock.pass(6_000);
    run.socket.end(1006);
    run.socket.accept();
    assert.deepEqual(run.socket.sets, [['a']]);
  });

  test('a set that is refused when it is renewed is tried again later, since nothing else is in force', async (t) => {
    const run = await start(t);
    run.client.subscribe(['a']);
    run.socket.accept();
    await run.clock.pass(5_000);
    run.socket.end(1006);
    for (const delay of [500, 1_000, 2_000]) {
      run.socket.open();
      run.socket.receive({ type: 'error', error: { code: 'too-many-subscriptions', detail: '…' } });
      assert.deepEqual(run.socket.closed, []);
      assert.equal(run.statuses.at(-1).reason, 'too-many-subscriptions');
      await run.clock.pass(delay);
    }
    run.socket.accept();
    assert.deepEqual(run.socket.sets, [['a']]);
    assert.equal(run.client.isSubscribed, true);
    assert.deepEqual(run.errors.map(({ code }) => code), Array(3).fill('too-many-subscriptions'));
  });

  test('with a fresh token each time, where it is forbidden', async (t) => {
    let asked = 0;
    const run = await start(t, { token: () => `token ${(asked += 1)}` });
    run.client.subscribe(['a']);
    run.socket.accept();
    await run.clock.pass(5_000);
    run.socket.end(1006);
    await settle();
    for (let round = 0; round < 4; round += 1) {
      run.socket.open();
      run.socket.receive({ type: 'error', error: { code: 'forbidden', detail: '…' } });
      await run.clock.pass(30_000 - 5_001);
      if (run.client.status === 'waiting') run.client.wake();
      await settle();
      await run.clock.pass(0);
    }
    assert.ok(asked >= 4, `${asked} tokens`);
    assert.notEqual(run.client.status, 'closed');
  });

  test('but not where a handler of the error has asked for another, or closed the client', async (t) => {
    for (const act of [(client) => client.subscribe(['b']), (client) => client.close()]) {
      const run = await start(t);
      run.client.subscribe(['a']);
      run.socket.accept();
      await run.clock.pass(5_000);
      run.socket.end(1006);
      run.socket.open();
      run.client.on('error', () => act(run.client));
      run.socket.receive({ type: 'error', error: { code: 'too-many-subscriptions', detail: '…' } });
      assert.notEqual(run.client.status, 'waiting');
      run.client.close();
      assert.equal(run.clock.pending, 0);
      run.clock.restore();
    }
  });

  test('a set that is refused on a new connection brings the one before', async (t) => {
    const run = await start(t);
    run.client.subscribe(['a']);
    run.socket.accept();
    run.socket.end(1006);
    const bad = run.client.subscribe([{}]);
    await run.clock.pass(500);
    run.socket.open();
    run.socket.receive({ type: 'error', error: { code: 'invalid-subscription', detail: '…' } });
    await assert.rejects(bad, { code: 'invalid-subscription' });
    assert.deepEqual(run.socket.sets, [[{}], ['a']]);
  });

  test('a refusal does not take back the set that was asked for after it', async (t) => {
    const run = await start(t);
    run.socket.accept();
    run.client.subscribe([{}]);
    run.client.subscribe(['b']);
    run.socket.receive({ type: 'error', error: { code: 'invalid-subscription', detail: '…' } });
    run.socket.end(1006);
    await run.clock.pass(500);
    run.socket.accept();
    assert.deepEqual(run.socket.sets, [['b']]);
  });

  test('nobody has to care for the answer', async (t) => {
    const run = await start(t);
    run.client.subscribe([{}]);
    run.socket.open();
    run.socket.receive({ type: 'error', error: { code: 'invalid-subscription', detail: '…' } });
    run.client.subscribe(['a']);
    run.client.close();
    run.client.subscribe(['b']);
    // An unhandled rejection would end the process here.
    await settle();
  });

  test('what is no list is a mistake of the caller', async (t) => {
    const run = await start(t);
    assert.throws(() => run.client.subscribe('a'), TypeError);
  });
});

describe('subscribed', () => {
  const refuse = (run, code = 'invalid-subscription') => run.socket.receive({ type: 'error', error: { code, detail: '…' } });

  test('it is said when the list is in force, not when the connection is there', async (t) => {
    const run = await start(t);
    run.client.subscribe(['a']);
    assert.equal(run.client.isSubscribed, false);
    run.socket.open();
    assert.equal(run.client.status, 'online');
    assert.equal(run.client.isSubscribed, false);
    assert.deepEqual(run.inForce, []);
    run.socket.acknowledge();
    assert.deepEqual(run.inForce, [{ list: ['a'], isFirst: true, isResumed: false }]);
    assert.equal(run.client.isSubscribed, true);
  });

  test('it is said again at each connection, and for each list', async (t) => {
    const run = await start(t);
    run.client.subscribe(['a']);
    run.socket.accept();
    await run.clock.pass(5_000);
    run.socket.end(1006);
    assert.equal(run.client.isSubscribed, false);
    run.socket.accept();
    const answer = run.client.subscribe(['a', 'b']);
    assert.equal(run.client.isSubscribed, false);
    run.socket.acknowledge();
    await answer;
    assert.deepEqual(run.inForce, [
      { list: ['a'], isFirst: true, isResumed: false },
      { list: ['a'], isFirst: true, isResumed: false },
      { list: ['a', 'b'], isFirst: false, isResumed: false },
    ]);
  });

  test('an answer to a list that was replaced meanwhile says nothing', async (t) => {
    const run = await start(t);
    run.client.subscribe(['a']);
    run.socket.open();
    run.client.subscribe(['b', 'c']);
    run.client.subscribe(['d']);
    run.socket.receive({ type: 'subscribed', subscriptions: 1, heartbeat: 25 });
    refuse(run);
    assert.deepEqual(run.inForce, []);
    assert.equal(run.client.isSubscribed, false);
    run.socket.receive({ type: 'subscribed', subscriptions: 1, heartbeat: 25 });
    assert.deepEqual(run.inForce, [{ list: ['d'], isFirst: true, isResumed: false }]);
  });

  test('answers that were due on the connection before are not waited for', async (t) => {
    const run = await start(t);
    run.socket.open();
    run.client.subscribe(['a']);
    run.client.subscribe(['b']);
    run.socket.end(1006);
    await run.clock.pass(500);
    run.socket.accept();
    assert.deepEqual(run.inForce, [{ list: ['b'], isFirst: true, isResumed: false }]);
  });

  test('a list that comes back after another is said again: there was a time without it', async (t) => {
    const run = await start(t);
    run.client.subscribe(['a']);
    run.socket.accept();
    run.client.subscribe(['b']);
    run.client.subscribe(['a']);
    for (let answer = 0; answer < 2; answer += 1) run.socket.receive({ type: 'subscribed', subscriptions: 1, heartbeat: 25 });
    assert.deepEqual(run.inForce, [{ list: ['a'], isFirst: true, isResumed: false }, { list: ['a'], isFirst: false, isResumed: false }]);
    // And once more where a refusal shows that it stays.
    run.client.subscribe(['b']);
    run.client.subscribe(['a']);
    run.client.subscribe([{}]);
    for (let answer = 0; answer < 2; answer += 1) run.socket.receive({ type: 'subscribed', subscriptions: 1, heartbeat: 25 });
    refuse(run);
    assert.deepEqual(run.inForce.slice(2), [{ list: ['a'], isFirst: false, isResumed: false }]);
  });

  test('a refusal leaves the list before in force, without a word', async (t) => {
    const run = await start(t);
    run.client.subscribe(['a']);
    run.socket.accept();
    run.client.subscribe([{}]);
    assert.equal(run.client.isSubscribed, false);
    refuse(run);
    assert.equal(run.client.isSubscribed, true);
    assert.equal(run.inForce.length, 1);
  });

  test('unless that was never said', async (t) => {
    const run = await start(t);
    run.client.subscribe(['a']);
    run.socket.open();
    run.client.subscribe([{}]);
    run.socket.receive({ type: 'subscribed', subscriptions: 1, heartbeat: 25 });
    assert.deepEqual(run.inForce, []);
    refuse(run);
    assert.deepEqual(run.inForce, [{ list: ['a'], isFirst: true, isResumed: false }]);
  });

  test('where nothing is in force, nothing is said', async (t) => {
    const run = await start(t);
    run.client.subscribe(['a']);
    run.socket.accept();
    await run.clock.pass(5_000);
    run.socket.end(1006);
    run.socket.open();
    refuse(run, 'too-many-subscriptions');
    assert.equal(run.client.isSubscribed, false);
    assert.equal(run.inForce.length, 1);
  });

  test('a refused list on a new connection: it is said for the one that takes its place', async (t) => {
    const run = await start(t);
    run.client.subscribe(['a']);
    run.socket.accept();
    run.socket.end(1006);
    run.client.subscribe([{}]);
    await run.clock.pass(500);
    run.socket.open();
    refuse(run);
    assert.equal(run.inForce.length, 1);
    run.socket.acknowledge();
    assert.deepEqual(run.inForce[1], { list: ['a'], isFirst: true, isResumed: false });
  });

  test('a token that has to be renewed first: it is said on the next connection', async (t) => {
    const run = await start(t, { token: () => 'x' });
    run.client.subscribe(['a']);
    run.socket.open();
    refuse(run, 'forbidden');
    assert.deepEqual(run.inForce, []);
    await run.clock.pass(500);
    run.socket.accept();
    assert.deepEqual(run.inForce, [{ list: ['a'], isFirst: true, isResumed: false }]);
  });

  test('it comes before what the list brings, and the promise behind it', async (t) => {
    const run = await start(t);
    const order = [];
    run.client.on('subscribed', () => order.push('subscribed'));
    run.client.on('notification', () => order.push('notification'));
    const answer = run.client.subscribe(['a']).then(() => order.push('promise'));
    run.socket.accept();
    run.socket.receive({ type: 'notification', notification: {} });
    await answer;
    assert.deepEqual(order, ['subscribed', 'notification', 'promise']);
  });

  test('its handlers may do anything', async (t) => {
    const run = await start(t);
    const remove = run.client.on('subscribed', ({ list }) => list.length === 0 && run.client.subscribe(['a']));
    run.socket.accept();
    assert.equal(run.client.isSubscribed, false);
    run.socket.acknowledge();
    assert.deepEqual(run.inForce.map(({ list }) => list), [[], ['a']]);
    remove();
    run.client.on('error', () => run.client.close());
    run.client.subscribe(['b']);
    run.client.subscribe([{}]);
    run.socket.receive({ type: 'subscribed', subscriptions: 1, heartbeat: 25 });
    refuse(run);
    assert.equal(run.client.status, 'closed');
    assert.equal(run.client.isSubscribed, false);
    assert.equal(run.inForce.length, 2);
  });

  test('an answer that nobody expects says nothing', async (t) => {
    const run = await start(t);
    run.socket.accept();
    run.socket.receive({ type: 'subscribed', subscriptions: 7, heartbeat: 1 });
    refuse(run);
    assert.equal(run.inForce.length, 1);
  });
});

describe('liveness', () => {
  /** A client that is online, with an answer to its subscriptions. */
  async function online(t, heartbeat = 25, options = {}) {
    const run = await start(t, options);
    run.socket.accept(heartbeat);
    return run;
  }

  test('a ping goes out when nothing was received for the heartbeat', async (t) => {
    const run = await online(t, 20);
    await run.clock.pass(19_999);
    assert.equal(run.socket.pings, 0);
    await run.clock.pass(1);
    assert.equal(run.socket.pings, 1);
  });

  test('the heartbeat is the one that the server tells, however short', async (t) => {
    const run = await online(t, 0.5);
    await run.clock.pass(499);
    assert.equal(run.socket.pings, 0);
    await run.clock.pass(1);
    assert.equal(run.socket.pings, 1);
  });

  test('a connection that has just opened is not asked', async (t) => {
    const run = await start(t);
    const { socket } = run;
    socket.open();
    await run.clock.pass(24_999);
    assert.equal(socket.pings, 0);
  });

  test('a question that was open when a connection died is not open on the next', async (t) => {
    const run = await online(t);
    await run.clock.pass(35_000);
    run.socket.open();
    await run.clock.pass(5_000);
    assert.equal(run.client.status, 'online');
  });

  test('a server that tells no heartbeat is asked after 25 s', async (t) => {
    const run = await start(t);
    run.socket.open();
    run.socket.receive({ type: 'subscribed', subscriptions: 0 });
    await run.clock.pass(24_999);
    assert.equal(run.socket.pings, 0);
    await run.clock.pass(1);
    assert.equal(run.socket.pings, 1);
  });

  test('whatever is received is a sign of life', async (t) => {
    const run = await online(t);
    for (let round = 0; round < 10; round += 1) {
      await run.clock.pass(20_000);
      run.socket.receive({ type: 'notification', notification: { channel: 'a' } });
    }
    assert.equal(run.socket.pings, 0);
  });

  test('no answer in 10 s: it is dropped, and tried again at once', async (t) => {
    const run = await online(t);
    const { socket } = run;
    await run.clock.pass(25_000 + 9_999);
    assert.equal(run.client.status, 'online');
    await run.clock.pass(1);
    assert.equal(run.client.status, 'connecting');
    assert.deepEqual(socket.closed, []);
    assert.equal(run.count, 2);
  });

  test('an answer keeps it, and tells the round trip', async (t) => {
    const run = await online(t);
    assert.equal(run.client.roundTrip, null);
    for (let round = 1; round <= 5; round += 1) {
      await run.clock.pass(25_000);
      assert.equal(run.socket.pings, round);
      await run.clock.pass(40);
      run.socket.receive({ type: 'pong' });
      assert.equal(run.client.roundTrip, 40);
    }
    assert.equal(run.count, 1);
  });

  test('a notification after the ping is an answer too', async (t) => {
    const run = await online(t);
    await run.clock.pass(25_000);
    run.socket.receive({ type: 'notification', notification: {} });
    await run.clock.pass(24_999);
    assert.equal(run.client.status, 'online');
  });

  /** Lets the link go silent until that is noticed, and comes back. */
  async function dieSilently(run, pingAfter) {
    await run.clock.pass(pingAfter + 10_000);
    assert.equal(run.client.status, 'connecting');
    run.socket.accept();
  }

  /** The next ping is due after `ms`, and not before. */
  async function assertPing(run, ms) {
    await run.clock.pass(ms - 1);
    assert.equal(run.socket.pings, 0);
    await run.clock.pass(1);
    assert.equal(run.socket.pings, 1);
  }

  test('behind a connection that died silently it asks after half its life', async (t) => {
    const run = await online(t);
    await dieSilently(run, 25_000);
    // It lived for 35 s, and the next for 27.5 s.
    await assertPing(run, 17_500);
    await dieSilently(run, 0);
    await assertPing(run, 13_750);
  });

  test('and after 10 s at least', async (t) => {
    const run = await online(t);
    await run.clock.pass(1_000);
    run.client.wake();
    await dieSilently(run, 0);
    await assertPing(run, 10_000);
  });

  test('but never later than the heartbeat', async (t) => {
    const run = await online(t, 2);
    await dieSilently(run, 2_000);
    run.socket.receive({ type: 'pong' });
    run.client.subscribe(['a']);
    run.socket.acknowledge(2);
    await assertPing(run, 2_000);
  });

  test('a long life that ended silently changes nothing', async (t) => {
    const run = await online(t);
    for (let round = 0; round < 10; round += 1) {
      await run.clock.pass(25_000);
      run.socket.receive({ type: 'pong' });
    }
    await dieSilently(run, 25_000);
    await run.clock.pass(24_999);
    assert.equal(run.socket.pings, 0);
  });

  test('a connection that ended with a word brings the heartbeat back', async (t) => {
    const run = await online(t);
    await dieSilently(run, 25_000);
    await run.clock.pass(6_000);
    run.socket.end(1001);
    run.socket.accept();
    await run.clock.pass(24_999);
    assert.equal(run.socket.pings, 0);
  });

  test('tries that fail in between do not make it forget', async (t) => {
    const run = await online(t);
    await run.clock.pass(35_000);
    run.socket.end(1006);
    await run.clock.pass(500);
    run.socket.accept();
    await run.clock.pass(17_500);
    assert.equal(run.socket.pings, 1);
  });

  test('after a wake from sleep it asks at once, and waits for the answer', async (t) => {
    const run = await online(t);
    await run.clock.pass(1_000);
    run.clock.sleep(3_600_000);
    await run.clock.pass(0);
    assert.equal(run.socket.pings, 1);
    await run.clock.pass(9_999);
    assert.equal(run.client.status, 'online');
    await run.clock.pass(1);
    assert.equal(run.client.status, 'connecting');
  });

  test('a sleep with a question open asks it again, instead of giving up', async (t) => {
    const run = await online(t);
    await run.clock.pass(25_000);
    run.clock.sleep(3_600_000);
    await run.clock.pass(0);
    assert.equal(run.client.status, 'online');
    assert.equal(run.socket.pings, 2);
    run.socket.receive({ type: 'pong' });
    await run.clock.pass(20_000);
    assert.equal(run.client.status, 'online');
  });

  test('a page whose timers are all late gives up what has not answered until the next', async (t) => {
    const run = await online(t);
    for (let minute = 1; minute <= 5; minute += 1) {
      run.clock.sleep(60_000);
      await run.clock.pass(0);
      assert.equal(run.socket.pings, minute);
      run.socket.receive({ type: 'pong' });
    }
    run.clock.sleep(60_000);
    await run.clock.pass(0);
    assert.equal(run.client.status, 'online');
    run.clock.sleep(60_000);
    await run.clock.pass(0);
    assert.equal(run.client.status, 'connecting');
  });

  test('but not what a connection before has left unanswered', async (t) => {
    const run = await online(t);
    run.clock.sleep(60_000);
    await run.clock.pass(0);
    run.socket.end(1006);
    await settle();
    run.socket.accept();
    run.client.wake();
    run.clock.sleep(60_000);
    await run.clock.pass(0);
    assert.equal(run.client.status, 'online');
  });

  test('sleep is noticed within 5 s where the timers slept too', async (t) => {
    const run = await online(t);
    await run.clock.pass(1_000);
    run.clock.sleepWithTimers(3_600_000);
    await run.clock.pass(4_000);
    assert.equal(run.socket.pings, 1);
  });

  test('a clock that is set back is no reason for silence', async (t) => {
    const run = await online(t);
    await run.clock.pass(1_000);
    run.clock.sleepWithTimers(-3_600_000);
    await run.clock.pass(4_000);
    assert.equal(run.socket.pings, 1);
  });

  test('wake() asks at once, and not twice', async (t) => {
    const run = await online(t);
    run.client.wake();
    run.client.wake();
    assert.equal(run.socket.pings, 1);
    await run.clock.pass(10_000);
    assert.equal(run.client.status, 'connecting');
  });
});

describe('the device', () => {
  for (const event of ['online', 'visibilitychange', 'pageshow']) {
    test(`${event} tries at once, and asks where it is online`, async (t) => {
      const { window, page } = definePage(t);
      const run = await start(t);
      const happen = () => (event === 'visibilitychange' ? page.dispatch(event) : window.dispatch(event, { persisted: true }));
      run.socket.end(1006);
      assert.equal(run.client.status, 'waiting');
      happen();
      assert.equal(run.count, 2);
      happen();
      assert.equal(run.count, 2);
      run.socket.accept();
      happen();
      assert.equal(run.socket.pings, 1);
    });
  }

  test('a page that is shown for the first time was not away', async (t) => {
    const { window } = definePage(t);
    const run = await start(t);
    run.socket.accept();
    window.dispatch('pageshow', { persisted: false });
    assert.equal(run.socket.pings, 0);
  });

  test('a page that goes away tries nothing', async (t) => {
    const { page } = definePage(t);
    const run = await start(t);
    run.socket.end(1006);
    page.visibilityState = 'hidden';
    page.dispatch('visibilitychange');
    assert.equal(run.count, 1);
  });

  test("React Native's AppState tries at once when the app is active", async (t) => {
    const target = new FakeTarget();
    const appState = {
      currentState: 'active',
      addEventListener(event, handler) {
        target.addEventListener(event, handler);
        return { remove: () => target.removeEventListener(event, handler) };
      },
    };
    const run = await start(t, { appState });
    run.socket.end(1006);
    target.dispatch('change', 'background');
    target.dispatch('change', 'inactive');
    assert.equal(run.count, 1);
    target.dispatch('change', 'active');
    assert.equal(run.count, 2);
    run.client.close();
    assert.equal(target.count, 0);
  });

  for (const [name, away] of [
    ['offline', (page) => (globalThis.navigator.onLine = false)],
    ['hidden', (page) => (page.visibilityState = 'hidden')],
  ]) {
    test(`${name}: tries are slow, and don't count`, async (t) => {
      const { page, window } = definePage(t);
      const run = await start(t);
      run.socket.accept();
      await run.clock.pass(5_000);
      away(page);
      run.socket.end(1006);
      for (let round = 0; round < 10; round += 1) {
        run.socket.end(1006);
        assert.equal(run.client.retryAt - run.clock.now, 30_000);
        await run.clock.pass(30_000);
      }
      run.socket.end(1006);
      page.visibilityState = 'visible';
      globalThis.navigator.onLine = true;
      window.dispatch('online');
      run.socket.end(1006);
      assert.equal(run.client.retryAt - run.clock.now, 1_000);
    });
  }

  test('an app in the background tries slowly too', async (t) => {
    const appState = { currentState: 'background', addEventListener: () => ({ remove() {} }) };
    const run = await start(t, { appState });
    run.socket.end(1006);
    assert.equal(run.client.retryAt - run.clock.now, 30_000);
  });

  test('close() leaves no listener', async (t) => {
    const { page, window } = definePage(t);
    const run = await start(t);
    assert.ok(window.count > 0 && page.count > 0);
    run.client.close();
    assert.equal(window.count + page.count, 0);
  });
});

describe('messages', () => {
  test('a notification is handed on parsed, and as it came', async (t) => {
    const run = await start(t);
    run.socket.accept();
    const text = '{"type":"chat","notification":{"channel":"a","price":1.0}}';
    run.socket.receive(text);
    assert.deepEqual(run.notifications, [{ message: { type: 'chat', notification: { channel: 'a', price: 1 } }, text }]);
  });

  test('what is no message is an error event, and no more', async (t) => {
    const run = await start(t);
    run.socket.accept();
    for (const bad of ['', '{', 'null', '1', '[]', '{}', '{"type":1}']) run.socket.receive(bad);
    run.socket.onmessage({ data: new ArrayBuffer(1) });
    assert.deepEqual(run.errors.map(({ code }) => code), new Array(8).fill('bad-message'));
    run.socket.receive('{"type":"notification","notification":null}');
    assert.equal(run.notifications.length, 1);
    assert.equal(run.client.status, 'online');
  });

  test('messages that nobody expects change nothing', async (t) => {
    const run = await start(t);
    run.socket.accept();
    run.socket.receive({ type: 'pong' });
    run.socket.receive({ type: 'subscribed', subscriptions: 7, heartbeat: 1 });
    run.socket.receive({ type: 'of-a-newer-server', value: 1 });
    assert.deepEqual(run.errors, []);
    assert.deepEqual(run.notifications, []);
    assert.equal(run.client.roundTrip, null);
    run.socket.receive({ type: 'error' });
    assert.equal(run.errors.length, 1);
    await run.clock.pass(24_999);
    assert.equal(run.socket.pings, 0);
  });

  test('a handler that throws harms nobody else', async (t) => {
    const reported = [];
    define(t, 'reportError', (error) => reported.push(error.message));
    const run = await start(t);
    run.client.on('notification', () => {
      throw new Error('of a handler');
    });
    let seen = 0;
    run.client.on('notification', () => (seen += 1));
    run.socket.accept();
    run.socket.receive({ type: 'notification', notification: {} });
    assert.deepEqual(reported, ['of a handler']);
    assert.equal(seen, 1);
  });

  test('a handler that adds another adds it for the next event', async (t) => {
    const run = await start(t);
    let seen = 0;
    run.client.on('notification', () => run.client.on('notification', () => (seen += 1)));
    run.socket.accept();
    run.socket.receive({ type: 'notification', notification: {} });
    assert.equal(seen, 0);
    run.socket.receive({ type: 'notification', notification: {} });
    assert.equal(seen, 1);
  });

  test('on() gives the way to end it, and knows its events', async (t) => {
    const run = await start(t);
    let seen = 0;
    const handler = () => (seen += 1);
    const removes = [run.client.on('notification', handler), run.client.on('notification', handler)];
    run.socket.accept();
    run.socket.receive({ type: 'notification', notification: {} });
    assert.equal(seen, 2);
    for (const count of [3, 3]) {
      removes[0]();
      run.socket.receive({ type: 'notification', notification: {} });
      assert.equal(seen, count);
      removes.reverse();
    }
    assert.throws(() => run.client.on('notifications', () => {}), TypeError);
  });
});

describe('close()', () => {
  const stages = {
    connecting: async () => {},
    online: async (run) => run.socket.accept(),
    'online with a ping open': async (run) => {
      run.socket.accept();
      await run.clock.pass(26_000);
    },
    waiting: async (run) => run.socket.end(1006),
  };
  for (const [name, reach] of Object.entries(stages)) {
    test(`while ${name}: no timer, no socket, no event is left`, async (t) => {
      const run = await start(t);
      await reach(run);
      run.client.close();
      run.client.close();
      assert.equal(run.clock.pending, 0);
      assert.equal(run.client.status, 'closed');
      assert.equal(run.names.filter((status) => status === 'closed').length, 1);
      const { length } = run.statuses;
      const { count } = run;
      if (run.socket.closed) run.socket.onclose({ code: 1000, reason: '' });
      run.client.wake();
      await run.clock.pass(600_000);
      assert.equal(run.statuses.length, length);
      assert.equal(run.count, count);
      assert.equal(run.clock.pending, 0);
      assert.deepEqual(run.errors, []);
    });
  }

  test('it says goodbye with 1000', async (t) => {
    const run = await start(t);
    run.socket.accept();
    run.client.close();
    assert.deepEqual(run.socket.closed, [1000]);
  });

  test('a caller that waits for an answer is told', async (t) => {
    const run = await start(t);
    run.socket.accept();
    const answers = [run.client.subscribe(['a']), run.client.subscribe(['b'])];
    run.client.close();
    for (const answer of [...answers, run.client.subscribe(['c'])]) {
      await assert.rejects(answer, { code: 'closed' });
    }
  });

  for (const at of ['connecting', 'online', 'waiting']) {
    test(`from a handler of ${at}`, async (t) => {
      const run = await start(t);
      run.client.on('status', ({ status }) => status === at && run.client.close());
      if (at === 'online') run.socket.accept();
      else {
        run.socket.end(1006);
        await run.clock.pass(1_000);
      }
      assert.equal(run.client.status, 'closed');
      assert.equal(run.count, 1);
      assert.equal(run.clock.pending, 0);
    });
  }

  test('from a handler of an error on the way to another try', async (t) => {
    const run = await start(t, { token: () => Promise.reject(new Error('no')) });
    assert.equal(run.client.status, 'waiting');
    run.client.on('error', () => run.client.close());
    await run.clock.pass(60_000);
    assert.equal(run.client.status, 'closed');
    assert.equal(run.clock.pending, 0);
  });
});

test('a long life of many connections leaves one timer at most', async (t) => {
  const run = await start(t);
  for (let round = 0; round < 200; round += 1) {
    run.socket.accept();
    run.client.subscribe([`c${round}`]);
    await run.clock.pass(round * 137);
    assert.ok(run.clock.pending <= 1);
    if (run.client.status === 'online') run.socket.end([1000, 1001, 1006, 1013][round % 4]);
    await run.clock.pass(30_000);
    assert.ok(run.clock.pending <= 1);
    if (run.client.status === 'waiting') run.client.wake();
    await settle();
    if (run.client.status === 'connecting') continue;
    run.socket.end(1006);
    await run.clock.pass(run.client.retryAt - run.clock.now);
  }
  run.client.close();
  assert.equal(run.clock.pending, 0);
});
