// The client's place in the server's history, on a clock and a socket of the test's own: every answer in
// every order, and thousands of random lives against a server whose rules are written out here.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Crieur } from '@crieur/client';
import { fakeWebSocket, settle, start } from './fakes.js';

const kept = (id, n) => ({ type: 'notification', id, notification: { channel: 'a', n } });
const unkept = (n) => ({ type: 'notification', notification: { channel: 'a', n } });
const caughtUp = (id, missed) => ({ type: 'caught-up', id, missed });
const numbers = (run) => run.notifications.map(({ message }) => message.notification.n);
const sinces = (socket) => socket.lists.map(({ since }) => since);

/** A client whose list is in force at position `p1`. */
async function subscribed(t, options = {}) {
  const run = await start(t, options);
  run.client.subscribe(['a']);
  run.socket.accept(25, { id: 'p1' });
  return run;
}

/** Lets a client that has lost its connection try again. */
async function retry(run) {
  run.client.wake();
  await settle();
  assert.equal(run.client.status, 'connecting');
}

/** Breaks the connection; the next one is open, and its list sent. */
async function reconnect(run) {
  run.socket.end(1006);
  await retry(run);
  run.socket.open();
}

describe('the position', () => {
  test('the first list asks for ids, and the answer is the position', async (t) => {
    const run = await start(t);
    assert.equal(run.client.position, null);
    run.client.subscribe(['a']);
    run.socket.accept(25, { id: 'p1' });
    assert.deepEqual(run.socket.lists, [{ sender: 'client', subscriptions: ['a'], since: '' }]);
    assert.equal(run.client.position, 'p1');
    assert.deepEqual(run.inForce, [{ list: ['a'], isFirst: true, isResumed: false }]);
    assert.deepEqual(run.continuity, []);
  });

  test('it follows deliveries, pongs and caught-up, and lists that replace others', async (t) => {
    const run = await subscribed(t);
    run.socket.receive(kept('p2', 1));
    assert.equal(run.client.position, 'p2');
    run.socket.receive(unkept(2));
    assert.equal(run.client.position, 'p2');
    run.socket.receive({ type: 'pong', id: 'p3' });
    assert.equal(run.client.position, 'p3');
    run.client.subscribe(['a', 'b']);
    assert.deepEqual(sinces(run.socket), ['', undefined], 'a list on a connection that has ids counts from now');
    run.socket.acknowledge(25, { id: 'p4' });
    assert.equal(run.client.position, 'p4');
    await reconnect(run);
    assert.deepEqual(sinces(run.socket), ['p4']);
    run.socket.acknowledge(25, { id: 'p4', resumed: true });
    run.socket.receive(caughtUp('p9', 0));
    assert.equal(run.client.position, 'p9');
    assert.deepEqual(numbers(run), [1, 2]);
  });

  test('it has moved when the handlers hear of what moved it', async (t) => {
    const run = await start(t);
    const seen = [];
    run.client.on('notification', ({ id }) => seen.push([id, run.client.position]));
    run.client.on('subscribed', () => seen.push(['subscribed', run.client.position]));
    run.client.on('resumed', () => seen.push(['resumed', run.client.position]));
    run.client.on('gap', () => seen.push(['gap', run.client.position]));
    run.client.subscribe(['a']);
    run.socket.accept(25, { id: 'p1' });
    run.socket.receive(kept('p2', 1));
    await reconnect(run);
    run.socket.acknowledge(25, { id: 'p2', resumed: true });
    run.socket.receive(caughtUp('p3', 0));
    run.socket.receive({ type: 'gap', id: 'p4', reason: 'x' });
    assert.deepEqual(seen, [['subscribed', 'p1'], ['p2', 'p2'], ['subscribed', 'p2'], ['resumed', 'p3'], ['gap', 'p4'], ['subscribed', 'p4']]);
  });

  test('a handler that throws or closes the client does not get an entry twice', async (t) => {
    const run = await subscribed(t);
    const reported = t.mock.method(console, 'error', () => {});
    run.client.on('notification', () => {
      run.client.close();
      throw new Error('a mistake');
    });
    run.socket.receive(kept('p2', 1));
    assert.equal(reported.mock.callCount(), 1);
    assert.equal(run.client.position, 'p2', 'it can be read behind close()');
  });

  test('a text that is none is no position', async (t) => {
    const run = await subscribed(t);
    for (const id of [7, null, '', {}]) {
      run.socket.receive({ type: 'pong', id });
      run.socket.receive({ ...kept(id, 1) });
      assert.equal(run.client.position, 'p1');
    }
    assert.equal(run.notifications.length, 4);
  });

  test('an empty list shows none, and leaves it where it is', async (t) => {
    const run = await start(t, { since: 'p5' });
    run.socket.accept();
    assert.deepEqual(run.socket.lists, [{ sender: 'client', subscriptions: [] }]);
    run.socket.receive({ type: 'pong' });
    assert.equal(run.client.position, 'p5');
    run.client.subscribe(['a']);
    assert.deepEqual(sinces(run.socket), [undefined, 'p5']);
    run.socket.acknowledge(25, { id: 'p5', resumed: true });
    assert.deepEqual(run.inForce.at(-1), { list: ['a'], isFirst: false, isResumed: true });
  });
});

describe('coming back', () => {
  test('resumed: nothing has to be loaded, and all that was missed is handed on', async (t) => {
    const run = await subscribed(t);
    run.socket.receive(kept('p2', 1));
    await reconnect(run);
    assert.deepEqual(sinces(run.socket), ['p2']);
    run.socket.acknowledge(25, { id: 'p2', resumed: true });
    assert.deepEqual(run.inForce.at(-1), { list: ['a'], isFirst: true, isResumed: true });
    run.socket.receive(kept('p3', 2));
    run.socket.receive(kept('p4', 3));
    assert.deepEqual(run.continuity, []);
    run.socket.receive(caughtUp('p5', 2));
    assert.deepEqual(run.continuity, ['resumed: 2']);
    run.socket.receive(caughtUp('p5', 2));
    assert.deepEqual(run.continuity, ['resumed: 2'], 'what is said once is said once');
    assert.deepEqual(numbers(run), [1, 2, 3]);
    assert.equal(run.client.position, 'p5');
  });

  for (const reason of ['expired', 'unknown', 'forbidden', 'something-of-a-later-version']) {
    test(`not resumed, ${reason}: a gap, before the list is said to be in force`, async (t) => {
      const run = await subscribed(t);
      const order = [];
      run.client.on('gap', () => order.push('gap'));
      run.client.on('subscribed', ({ isResumed }) => order.push(isResumed));
      await reconnect(run);
      run.socket.acknowledge(25, { id: 'p9', resumed: false, reason });
      assert.deepEqual(run.continuity, [`gap: ${reason}`]);
      assert.deepEqual(order, ['gap', false]);
      assert.equal(run.client.position, 'p9');
      await reconnect(run);
      assert.deepEqual(sinces(run.socket), ['p9'], 'it goes on from where the server said');
    });
  }

  test('anything else than true is a gap', async (t) => {
    const run = await subscribed(t);
    for (const [index, members] of [{}, { resumed: 'true' }, { resumed: 1 }, { reason: 5 }].entries()) {
      await reconnect(run);
      run.socket.acknowledge(25, { id: `q${index}`, ...members });
      assert.deepEqual(run.continuity.splice(0), ['gap: no-history']);
      assert.equal(run.inForce.at(-1).isResumed, false);
      assert.equal(run.client.position, `q${index}`);
    }
  });

  test('true, where no position was shown, is nothing that can be relied on', async (t) => {
    const run = await start(t);
    run.client.subscribe(['a']);
    run.socket.accept(25, { id: 'p1', resumed: true });
    assert.equal(run.inForce[0].isResumed, false);
    assert.equal(run.client.position, 'p1');
    run.socket.receive(caughtUp('p1', 0));
    assert.deepEqual(run.continuity, []);
  });

  test('a break before the first answer, or in the try, changes nothing', async (t) => {
    const run = await subscribed(t);
    await reconnect(run);
    await reconnect(run);
    run.socket.end(1006);
    await retry(run);
    run.socket.end(1006);
    await retry(run);
    run.socket.open();
    assert.deepEqual(sinces(run.socket), ['p1']);
    run.socket.acknowledge(25, { id: 'p1', resumed: true });
    assert.equal(run.inForce.at(-1).isResumed, true);
    assert.deepEqual(run.continuity, []);
  });

  test('a break in the middle of a replay goes on from there', async (t) => {
    const run = await subscribed(t);
    await reconnect(run);
    run.socket.acknowledge(25, { id: 'p1', resumed: true });
    run.socket.receive(kept('p2', 1));
    await reconnect(run);
    assert.deepEqual(sinces(run.socket), ['p2']);
    run.socket.acknowledge(25, { id: 'p2', resumed: true });
    run.socket.receive(kept('p3', 2));
    run.socket.receive(caughtUp('p3', 1));
    assert.deepEqual(numbers(run), [1, 2]);
    assert.deepEqual(run.continuity, ['resumed: 1']);
  });

  test('what went on during a break stays missing until it is resumed: the token is refused meanwhile', async (t) => {
    const run = await start(t, { token: () => 'secret' });
    run.client.subscribe(['a']);
    run.socket.accept(25, { id: 'p1' });
    await reconnect(run);
    run.socket.end(3000, '{"reason":"token-expired"}');
    await retry(run);
    run.socket.accept(25, { id: 'p1', resumed: true });
    assert.deepEqual(sinces(run.socket), ['p1']);
    assert.equal(run.inForce.at(-1).isResumed, true);
  });

  test('a client of a server that is too slow for it comes back with its position', async (t) => {
    const run = await subscribed(t);
    run.socket.receive(kept('p2', 1));
    run.socket.end(1013, '{"reason":"slow-consumer","retry":100}');
    await run.clock.pass(100);
    run.socket.open();
    assert.deepEqual(sinces(run.socket), ['p2']);
  });

  test('an app that comes to the front again has it all in one round trip', async (t) => {
    let change;
    const appState = {
      currentState: 'active',
      addEventListener: (_, handler) => {
        change = handler;
        return { remove() {} };
      },
    };
    const run = await subscribed(t, { appState });
    appState.currentState = 'background';
    change('background');
    run.socket.end(1006);
    await run.clock.pass(1);
    appState.currentState = 'active';
    change('active');
    await settle();
    run.socket.open();
    assert.equal(run.socket.sent.length, 1);
    run.socket.acknowledge(25, { id: 'p1', resumed: true });
    run.socket.receive(kept('p2', 1));
    run.socket.receive(caughtUp('p2', 1));
    assert.equal(run.socket.sent.length, 1, 'nothing else is asked');
    assert.deepEqual(numbers(run), [1]);
  });
});

describe('gaps while it is connected', () => {
  test('are said, and the list is said to be in force again', async (t) => {
    const run = await subscribed(t);
    run.socket.receive({ type: 'gap', id: 'p7', reason: 'forked' });
    assert.deepEqual(run.continuity, ['gap: forked']);
    assert.deepEqual(run.inForce.at(-1), { list: ['a'], isFirst: false, isResumed: false });
    assert.equal(run.client.position, 'p7');
    await reconnect(run);
    run.socket.acknowledge(25, { id: 'p7', resumed: true });
    assert.equal(run.inForce.at(-1).isResumed, true, 'the user was told to load it');
  });

  test('leave the position where it is if they say none', async (t) => {
    const run = await subscribed(t);
    run.socket.receive({ type: 'gap', reason: 'forked' });
    assert.equal(run.client.position, 'p1');
    assert.deepEqual(run.continuity, ['gap: forked']);
  });

  test('count before the list is answered, too', async (t) => {
    const run = await subscribed(t);
    await reconnect(run);
    run.socket.receive({ type: 'gap', id: 'p7', reason: 'forked' });
    run.socket.acknowledge(25, { id: 'p1', resumed: true });
    assert.deepEqual(run.continuity, ['gap: forked']);
    assert.equal(run.inForce.at(-1).isResumed, false);
  });

  test('end a replay: it is not said to have brought everything', async (t) => {
    const run = await subscribed(t);
    await reconnect(run);
    run.socket.acknowledge(25, { id: 'p1', resumed: true });
    run.socket.receive({ type: 'gap', id: 'p7', reason: 'forked' });
    run.socket.receive(caughtUp('p8', 3));
    assert.deepEqual(run.continuity, ['gap: forked']);
    assert.equal(run.client.position, 'p8');
  });

  test('are not mistaken for what a publisher calls so', async (t) => {
    const run = await subscribed(t);
    for (const type of ['gap', 'caught-up', 'subscribed', 'pong']) run.socket.receive({ ...unkept(1), type });
    assert.equal(run.notifications.length, 4);
    assert.deepEqual(run.continuity, []);
  });
});

describe('repetitions', () => {
  test('are dropped, and move the position all the same', async (t) => {
    const run = await subscribed(t);
    run.socket.receive(kept('p2', 1));
    run.socket.receive(kept('p3', 2));
    await reconnect(run);
    run.socket.acknowledge(25, { id: 'p3', resumed: true });
    run.socket.receive(kept('p2', 1));
    assert.equal(run.client.position, 'p2');
    run.socket.receive(kept('p4', 3));
    assert.deepEqual(numbers(run), [1, 2, 3]);
  });

  test('what is not kept has no id, and is never one', async (t) => {
    const run = await subscribed(t);
    run.socket.receive(unkept(1));
    run.socket.receive(unkept(1));
    assert.deepEqual(numbers(run), [1, 1]);
  });

  test('the last 10,000 are known', async (t) => {
    const run = await subscribed(t);
    for (let n = 1; n <= 10_000; n += 1) run.socket.receive(kept(`i${n}`, n));
    run.socket.receive(kept('i1', 1));
    assert.equal(run.notifications.length, 10_000);
    run.socket.receive(kept('i10001', 10_001));
    run.socket.receive(kept('i2', 2));
    assert.equal(run.notifications.length, 10_001);
    run.socket.receive(kept('i1', 1));
    assert.equal(run.notifications.length, 10_002, 'that was one too many');
  });
});

describe('lists that change', () => {
  test('while it is away: what the new list brings is not all that there is of it', async (t) => {
    const run = await subscribed(t);
    run.socket.end(1006);
    run.client.subscribe(['a', 'b']);
    await retry(run);
    run.socket.accept(25, { id: 'p1', resumed: true });
    assert.deepEqual(sinces(run.socket), ['p1']);
    assert.deepEqual(run.inForce.at(-1), { list: ['a', 'b'], isFirst: true, isResumed: false });
    run.socket.receive(caughtUp('p3', 0));
    assert.deepEqual(run.continuity, ['resumed: 0']);
    await reconnect(run);
    run.socket.acknowledge(25, { id: 'p3', resumed: true });
    assert.equal(run.inForce.at(-1).isResumed, true);
  });

  for (const between of [['a', 'b'], []]) {
    test(`to ${JSON.stringify(between)} and back while it is away: the app may have dropped its state`, async (t) => {
      const run = await subscribed(t);
      run.socket.end(1006);
      run.client.subscribe(between);
      run.client.subscribe(['a']);
      await retry(run);
      run.socket.accept(25, { id: 'p1', resumed: true });
      assert.equal(run.inForce.at(-1).isResumed, false);
      await reconnect(run);
      run.socket.acknowledge(25, { id: 'p1', resumed: true });
      assert.equal(run.inForce.at(-1).isResumed, true);
    });
  }

  test('given again as it is, it goes on', async (t) => {
    const run = await subscribed(t);
    run.client.subscribe(['a']);
    run.socket.end(1006);
    run.client.subscribe(['a']);
    await retry(run);
    run.socket.accept(25, { id: 'p1', resumed: true });
    assert.equal(run.inForce.at(-1).isResumed, true);
  });

  test('sent and not answered before the break, then back', async (t) => {
    const run = await subscribed(t);
    run.client.subscribe(['b']);
    run.socket.end(1006);
    run.client.subscribe(['a']);
    await retry(run);
    run.socket.accept(25, { id: 'p1', resumed: true });
    assert.equal(run.inForce.at(-1).isResumed, false);
  });

  test('before the first answer: each shows the position, and the second replay begins anew', async (t) => {
    const run = await subscribed(t);
    await reconnect(run);
    run.client.subscribe(['a', 'b']);
    assert.deepEqual(sinces(run.socket), ['p1', 'p1']);
    run.socket.receive({ type: 'subscribed', subscriptions: 1, heartbeat: 25, id: 'p1', resumed: true });
    run.socket.receive(kept('p3', 2));
    run.socket.receive({ type: 'subscribed', subscriptions: 2, heartbeat: 25, id: 'p1', resumed: true });
    assert.equal(run.client.position, 'p1', 'of the second nothing has come');
    assert.deepEqual(run.inForce.at(-1), { list: ['a', 'b'], isFirst: true, isResumed: false });
    run.socket.receive(kept('p2', 1));
    await reconnect(run);
    assert.deepEqual(sinces(run.socket), ['p2']);
    run.socket.acknowledge(25, { id: 'p2', resumed: true });
    run.socket.receive(kept('p3', 2));
    run.socket.receive(caughtUp('p3', 1));
    assert.deepEqual(numbers(run), [2, 1]);
  });

  test('before the first answer, which is no resumption: one gap', async (t) => {
    const run = await subscribed(t);
    await reconnect(run);
    run.client.subscribe(['a', 'b']);
    for (const id of ['p8', 'p9']) {
      run.socket.receive({ type: 'subscribed', subscriptions: 1, heartbeat: 25, id, resumed: false, reason: 'expired' });
    }
    assert.deepEqual(run.continuity, ['gap: expired']);
  });

  test('the first is resumed, the second is not: a gap', async (t) => {
    const run = await subscribed(t);
    await reconnect(run);
    run.client.subscribe(['a', 'b']);
    run.socket.receive({ type: 'subscribed', subscriptions: 1, heartbeat: 25, id: 'p1', resumed: true });
    run.socket.acknowledge(25, { id: 'p9', resumed: false, reason: 'expired' });
    run.socket.receive(caughtUp('p9', 0));
    assert.deepEqual(run.continuity, ['gap: expired']);
  });

  test('one that was taken and never said: what was in force before it is not complete any more', async (t) => {
    const run = await subscribed(t);
    run.client.subscribe(['b']);
    run.client.subscribe(['c']);
    // The first of the two is in force, and brings what moves the position over what ['a'] would have got.
    run.socket.receive({ type: 'subscribed', subscriptions: 1, heartbeat: 25, id: 'p2' });
    run.socket.receive(kept('p5', 1));
    run.socket.end(1006);
    run.client.subscribe(['a']);
    await retry(run);
    run.socket.accept(25, { id: 'p5', resumed: true });
    assert.equal(run.inForce.at(-1).isResumed, false);
  });

  for (const [what, answer] of [
    ['resumed', { id: 'p1', resumed: true }],
    ['not resumed', { id: 'p4', resumed: false, reason: 'expired' }],
  ]) {
    test(`the same on a new connection, ${what}`, async (t) => {
      const run = await subscribed(t);
      run.socket.end(1006);
      run.client.subscribe(['b']);
      await retry(run);
      run.socket.open();
      run.client.subscribe(['c']);
      run.socket.receive({ type: 'subscribed', subscriptions: 1, heartbeat: 25, ...answer });
      run.socket.receive(kept('p5', 1));
      run.socket.end(1006);
      run.client.subscribe(['a']);
      await retry(run);
      run.socket.accept(25, { id: 'p5', resumed: true });
      assert.deepEqual(run.inForce.at(-1), { list: ['a'], isFirst: true, isResumed: false });
    });
  }

  test('an empty list goes on with nothing, on whatever connection', async (t) => {
    const run = await subscribed(t);
    await reconnect(run);
    run.socket.acknowledge(25, { id: 'p1', resumed: true });
    run.socket.end(1006);
    run.client.subscribe([]);
    await retry(run);
    run.socket.accept();
    assert.deepEqual(run.inForce.at(-1), { list: [], isFirst: true, isResumed: false });
  });

  test('a list that is refused on a new connection: the one before shows the position again', async (t) => {
    const run = await subscribed(t);
    run.socket.end(1006);
    run.client.subscribe([{ package: 'p' }]).catch(() => {});
    await retry(run);
    run.socket.open();
    run.socket.receive({ type: 'error', error: { code: 'invalid-subscription', detail: 'no page' } });
    assert.deepEqual(run.socket.lists.slice(1), [{ sender: 'client', subscriptions: ['a'], since: 'p1' }]);
    run.socket.acknowledge(25, { id: 'p1', resumed: true });
    assert.deepEqual(run.inForce.at(-1), { list: ['a'], isFirst: true, isResumed: false });
  });

  test('a handler of a gap that subscribes to something else is not told of the list that it has replaced', async (t) => {
    const run = await subscribed(t);
    run.client.on('gap', () => run.client.subscribe(['b']));
    await reconnect(run);
    run.socket.acknowledge(25, { id: 'p9', resumed: false, reason: 'unknown' });
    assert.equal(run.inForce.length, 1);
    run.socket.acknowledge(25, { id: 'p9' });
    assert.deepEqual(run.inForce.at(-1), { list: ['b'], isFirst: true, isResumed: false });
  });

  test('a handler of a gap that closes the client is the last that is heard of it', async (t) => {
    const run = await subscribed(t);
    run.client.on('gap', () => run.client.close());
    await reconnect(run);
    run.socket.acknowledge(25, { id: 'p9', resumed: false, reason: 'unknown' });
    assert.equal(run.inForce.length, 1);
    assert.equal(run.clock.pending, 0);
  });
});

describe('a position that was kept', () => {
  test('is of the first list that was given, though another has replaced it before it was sent', async (t) => {
    const run = await start(t, { since: 'p5' });
    run.client.subscribe([]);
    run.client.subscribe(['a']);
    run.client.subscribe(['b']);
    run.socket.accept(25, { id: 'p5', resumed: true });
    assert.deepEqual(run.inForce, [{ list: ['b'], isFirst: true, isResumed: false }]);
  });

  test('is shown with the first list', async (t) => {
    const run = await start(t, { since: 'p5' });
    assert.equal(run.client.position, 'p5');
    // Of an app that doesn't know yet what it wants.
    run.client.subscribe([]);
    run.client.subscribe(['a']);
    run.socket.accept(25, { id: 'p5', resumed: true });
    assert.deepEqual(sinces(run.socket), ['p5']);
    assert.deepEqual(run.inForce, [{ list: ['a'], isFirst: true, isResumed: true }]);
    run.socket.receive(kept('p6', 1));
    run.socket.receive(caughtUp('p6', 1));
    assert.deepEqual(run.continuity, ['resumed: 1']);
  });

  test('that is too old is a gap at once', async (t) => {
    const run = await start(t, { since: 'p5' });
    run.client.subscribe(['a']);
    run.socket.accept(25, { id: 'p9', resumed: false, reason: 'expired' });
    assert.deepEqual(run.continuity, ['gap: expired']);
    assert.equal(run.inForce[0].isResumed, false);
  });

  test('none is none', async (t) => {
    for (const since of [null, undefined, '']) {
      const run = await start(t, { since });
      run.client.subscribe(['a']);
      run.socket.accept(25, { id: 'p1' });
      assert.deepEqual(sinces(run.socket), ['']);
      assert.deepEqual(run.continuity, []);
      run.client.close();
      run.clock.restore();
    }
    assert.throws(() => new Crieur('ws://test/', { WebSocket: fakeWebSocket(), since: 5 }), TypeError);
  });
});

describe('without a history', () => {
  test('a server that knows none: as before, and a gap at each connection but the first', async (t) => {
    const run = await start(t);
    run.client.subscribe(['a']);
    run.socket.accept();
    run.socket.receive(unkept(1));
    run.socket.receive(unkept(2));
    assert.equal(run.client.position, null);
    assert.deepEqual(run.continuity, []);
    run.client.subscribe(['a', 'b']);
    run.socket.acknowledge();
    assert.deepEqual(run.continuity, []);
    for (let round = 1; round <= 2; round += 1) {
      await reconnect(run);
      run.socket.acknowledge();
      assert.deepEqual(run.continuity.splice(0), ['gap: no-history']);
      assert.deepEqual(run.inForce.at(-1), { list: ['a', 'b'], isFirst: true, isResumed: false });
    }
    assert.deepEqual(numbers(run), [1, 2]);
  });

  test('one that has a history takes its place: what was between is a gap, then it resumes', async (t) => {
    const run = await start(t);
    run.client.subscribe(['a']);
    run.socket.accept();
    await reconnect(run);
    run.socket.acknowledge(25, { id: 'p1' });
    assert.deepEqual(run.continuity, ['gap: no-history']);
    await reconnect(run);
    assert.deepEqual(sinces(run.socket), ['p1']);
    run.socket.acknowledge(25, { id: 'p1', resumed: true });
    assert.equal(run.inForce.at(-1).isResumed, true);
  });

  test('one that has none takes its place', async (t) => {
    const run = await subscribed(t);
    await reconnect(run);
    run.socket.acknowledge();
    assert.deepEqual(run.continuity, ['gap: no-history']);
    assert.equal(run.client.position, null);
    await reconnect(run);
    assert.deepEqual(sinces(run.socket), ['']);
  });

  test('resume: false takes no position of a server that tells one all the same', async (t) => {
    const run = await start(t, { resume: false });
    run.client.subscribe(['a']);
    run.socket.accept(25, { id: 'p1', resumed: true });
    assert.equal(run.client.position, null);
    assert.equal(run.inForce[0].isResumed, false);
  });

  test('resume: false shows nothing, and each connection but the first is a gap', async (t) => {
    const run = await start(t, { resume: false, since: 'p5' });
    run.client.subscribe(['a']);
    run.socket.accept();
    assert.deepEqual(run.continuity.splice(0), ['gap: no-history'], 'what the app has is of a time before');
    await reconnect(run);
    run.socket.acknowledge();
    assert.deepEqual(run.continuity, ['gap: no-history']);
    assert.deepEqual(run.Socket.all.flatMap(sinces), [undefined, undefined]);
    assert.equal(run.client.position, null);
  });
});

describe('the position of a quiet client', () => {
  test('moves with the pongs of its heartbeat', async (t) => {
    const run = await subscribed(t);
    await run.clock.pass(25_000);
    assert.equal(run.socket.pings, 1);
    run.socket.receive({ type: 'pong', id: 'p2' });
    assert.equal(run.client.position, 'p2');
  });

  test('is asked for where only notifications come that are not kept', async (t) => {
    const run = await subscribed(t);
    let answered = 0;
    for (let second = 0; second < 60; second += 1) {
      run.socket.receive(unkept(second));
      await run.clock.pass(1_000);
      for (; answered < run.socket.pings; answered += 1) run.socket.receive({ type: 'pong', id: `q${answered}` });
    }
    assert.equal(run.client.position, 'q1');
  });

  test('but not where there is none', async (t) => {
    const run = await start(t);
    run.client.subscribe(['a']);
    run.socket.accept();
    for (let second = 0; second < 60; second += 1) {
      run.socket.receive(unkept(second));
      await run.clock.pass(1_000);
    }
    assert.equal(run.socket.pings, 0);
  });
});
