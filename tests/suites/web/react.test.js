// The hook, drawn by React's test renderer.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StrictMode, createElement, useEffect, useState } from 'react';
import { act, create } from 'react-test-renderer';
import { useCrieur } from 'crieur/react';
import { Clock, fakeWebSocket, settle } from './fakes.js';

globalThis.IS_REACT_ACT_ENVIRONMENT = true;

/** A component that uses the hook with `props`, its sockets and what the hook gave at last. */
async function mount(t, props, { strict = false } = {}) {
  const clock = new Clock();
  t.after(() => clock.restore());
  const complaints = [];
  t.mock.method(console, 'error', (...values) => complaints.push(values.join(' ')));
  const Socket = fakeWebSocket();
  const run = { clock, Socket, complaints, state: null, seen: [], renderings: 0 };
  function Component({ url, subscriptions, options }) {
    run.renderings += 1;
    run.state = useCrieur(url, subscriptions, { WebSocket: Socket, ...options });
    run.seen.push(run.state);
    return null;
  }
  const tree = (value) => {
    const component = createElement(Component, value);
    return strict ? createElement(StrictMode, null, component) : component;
  };
  await act(async () => {
    run.root = create(tree(props));
    await settle();
  });
  run.update = (value) =>
    act(async () => {
      run.root.update(tree(value));
      await settle();
    });
  run.unmount = () => act(() => run.root.unmount());
  return run;
}

const URL = 'ws://test/';

test('mounting connects and subscribes, unmounting leaves nothing', async (t) => {
  const run = await mount(t, { url: URL, subscriptions: ['a'] });
  assert.equal(run.state.status, 'connecting');
  await act(async () => run.Socket.last.accept());
  assert.equal(run.state.status, 'online');
  assert.deepEqual(run.Socket.last.sets, [['a']]);
  await run.unmount();
  assert.deepEqual(run.Socket.last.closed, [1000]);
  assert.equal(run.clock.pending, 0);
  await run.clock.pass(60_000);
  assert.equal(run.Socket.all.length, 1);
  // The renderer says of itself that it is deprecated.
  assert.deepEqual(run.complaints.filter((text) => !text.includes('react-test-renderer is deprecated')), []);
});

test("StrictMode's double mount makes one connection and one subscription", async (t) => {
  const seen = [];
  const options = { onNotification: ({ notification }) => seen.push(notification.n) };
  const run = await mount(t, { url: URL, subscriptions: ['a'], options }, { strict: true });
  assert.ok(run.renderings > 1, 'is this StrictMode?');
  assert.equal(run.Socket.all.length, 1);
  await act(async () => run.Socket.last.accept());
  assert.deepEqual(run.Socket.last.sets, [['a']]);
  assert.equal(run.state.status, 'online');
  await act(async () => run.Socket.last.receive({ type: 'notification', notification: { n: 1 } }));
  assert.deepEqual(seen, [1]);
  await run.unmount();
  assert.equal(run.clock.pending, 0);
});

test('other channels are another subscription on the same connection', async (t) => {
  const run = await mount(t, { url: URL, subscriptions: ['a'] });
  await act(async () => run.Socket.last.accept());
  await run.update({ url: URL, subscriptions: ['b', 'c'] });
  assert.equal(run.Socket.all.length, 1);
  assert.deepEqual(run.Socket.last.sets, [['a'], ['b', 'c']]);
  await run.update({ url: URL, subscriptions: null });
  assert.deepEqual(run.Socket.last.sets, [['a'], ['b', 'c'], []]);
});

test('the same channels in a new list are the same', async (t) => {
  const run = await mount(t, { url: URL, subscriptions: ['a'] });
  await act(async () => run.Socket.last.accept());
  for (let round = 0; round < 5; round += 1) await run.update({ url: URL, subscriptions: ['a'] });
  assert.deepEqual(run.Socket.last.sets, [['a']]);
});

test('the latest handler is called, and a new one is no new connection', async (t) => {
  const seen = [];
  const withHandler = (name) => ({
    url: URL,
    subscriptions: [],
    options: { onNotification: ({ notification }) => seen.push([name, notification.n]) },
  });
  const run = await mount(t, withHandler('first'));
  await act(async () => run.Socket.last.accept());
  await act(async () => run.Socket.last.receive({ type: 'notification', notification: { n: 1 } }));
  await run.update(withHandler('second'));
  await act(async () => run.Socket.last.receive({ type: 'notification', notification: { n: 2 } }));
  assert.deepEqual(seen, [['first', 1], ['second', 2]]);
  assert.equal(run.Socket.all.length, 1);
});

test('another URL is another client, no URL is none', async (t) => {
  const run = await mount(t, { url: null, subscriptions: ['a'] });
  assert.equal(run.state.status, 'closed');
  assert.equal(run.Socket.all.length, 0);
  await run.update({ url: URL, subscriptions: ['a'] });
  assert.equal(run.state.status, 'connecting');
  await act(async () => run.Socket.last.accept());
  await run.update({ url: 'ws://other/', subscriptions: ['a'] });
  assert.deepEqual(run.Socket.all[0].closed, [1000]);
  assert.equal(run.Socket.last.url, 'ws://other/');
  assert.equal(run.state.status, 'connecting');
  await act(async () => run.Socket.last.accept());
  assert.deepEqual(run.Socket.last.sets, [['a']]);
  await run.update({ url: null, subscriptions: ['a'] });
  assert.equal(run.state.status, 'closed');
  assert.equal(run.clock.pending, 0);
});

test('it tells when the next try is, and what went wrong until it is online again', async (t) => {
  const errors = [];
  const run = await mount(t, { url: URL, subscriptions: [], options: { onError: (error) => errors.push(error.code) } });
  await act(async () => run.Socket.last.accept());
  await act(async () => run.Socket.last.receive('nonsense'));
  assert.equal(run.state.error.code, 'bad-message');
  assert.deepEqual(errors, ['bad-message']);
  await act(async () => run.Socket.last.end(1001, '{"reason":"shutdown","retry":1000}'));
  assert.equal(run.state.status, 'waiting');
  assert.equal(run.state.retryAt, run.clock.now + 1000);
  await act(async () => run.clock.pass(1000));
  await act(async () => run.Socket.last.accept());
  assert.equal(run.state.status, 'online');
  assert.equal(run.state.error, null);
});

test('subscribed is there while the list is in force, and another object each time', async (t) => {
  const run = await mount(t, { url: URL, subscriptions: ['a'] });
  await act(async () => run.Socket.last.open());
  assert.equal(run.state.status, 'online');
  assert.equal(run.state.subscribed, null);
  await act(async () => run.Socket.last.acknowledge());
  const first = run.state.subscribed;
  assert.deepEqual(first, { list: ['a'], isFirst: true });
  // Nothing of it changes with another rendering, or another event.
  await run.update({ url: URL, subscriptions: ['a'] });
  await act(async () => run.Socket.last.receive('nonsense'));
  assert.equal(run.state.subscribed, first);
  await act(async () => run.Socket.last.end(1006));
  assert.equal(run.state.subscribed, null);
  await act(async () => run.clock.pass(500));
  // All at once, as where the page was busy: the effects still see that it is another.
  await act(async () => run.Socket.last.accept());
  const second = run.state.subscribed;
  assert.deepEqual(second, first);
  assert.notEqual(second, first);
  await act(async () => {
    await run.clock.pass(5_000);
    run.Socket.last.end(1006);
    run.Socket.last.accept();
  });
  assert.notEqual(run.state.subscribed, second);
  await run.update({ url: null, subscriptions: ['a'] });
  assert.equal(run.state.subscribed, null);
});

test('no rendering takes the list before for the new one', async (t) => {
  const run = await mount(t, { url: URL, subscriptions: ['a'] });
  await act(async () => run.Socket.last.accept());
  const seen = run.seen.length;
  await run.update({ url: URL, subscriptions: ['b'] });
  await run.update({ url: URL, subscriptions: ['a'] });
  // It was replaced meanwhile: what came then is missing.
  assert.deepEqual(run.seen.slice(seen).filter(({ subscribed }) => subscribed !== null), []);
  await act(async () => run.Socket.last.acknowledge());
  assert.equal(run.state.subscribed, null, 'that was the answer to b');
  await act(async () => run.Socket.last.acknowledge());
  assert.deepEqual(run.state.subscribed, { list: ['a'], isFirst: false });
  // A list that is refused is not in force, though the one before is.
  await run.update({ url: URL, subscriptions: [{}] });
  await act(async () => run.Socket.last.receive({ type: 'error', error: { code: 'invalid-subscription', detail: '…' } }));
  assert.equal(run.state.subscribed, null);
  // Another server's is none of this one's.
  const before = run.seen.length;
  await run.update({ url: 'ws://other/', subscriptions: ['a'] });
  assert.ok(run.seen.slice(before).every(({ subscribed }) => subscribed === null));
});

test('a component that loads what it missed when it is subscribed misses nothing', async (t) => {
  const clock = new Clock();
  t.after(() => clock.restore());
  t.mock.method(console, 'error', () => {});
  const Socket = fakeWebSocket();
  const database = ['1'];
  const answers = [];
  let shown;
  function Component() {
    const [messages, setMessages] = useState([]);
    const add = (more) => setMessages((before) => [...new Set([...before, ...more])].sort());
    const { subscribed } = useCrieur(URL, ['a'], { WebSocket: Socket, onNotification: ({ notification }) => add([notification.id]) });
    useEffect(() => {
      if (subscribed === null) return;
      const read = [...database];
      new Promise((resolve) => answers.push(resolve)).then(() => add(read));
    }, [subscribed]);
    shown = messages;
    return null;
  }
  let root;
  await act(async () => {
    root = create(createElement(StrictMode, null, createElement(Component)));
    await settle();
  });
  await act(async () => Socket.last.open());
  // Online, and the list is still on its way: nobody is told of this one.
  database.push('2');
  await act(async () => Socket.last.acknowledge());
  // And this one comes before the answer that does not have it.
  database.push('3');
  await act(async () => Socket.last.receive({ type: 'notification', notification: { id: '3' } }));
  await act(async () => answers.forEach((answer) => answer()));
  assert.deepEqual(shown, database);
  await act(() => root.unmount());
});

test('wake() is the same function at each rendering', async (t) => {
  const run = await mount(t, { url: URL, subscriptions: [] });
  const { wake } = run.state;
  await act(async () => run.Socket.last.end(1006));
  assert.equal(run.state.wake, wake);
  await act(async () => wake());
  assert.equal(run.Socket.all.length, 2);
  await run.unmount();
  wake();
});

test('a fresh token comes from the latest source', async (t) => {
  const withToken = (token) => ({ url: URL, subscriptions: [], options: { token: () => token } });
  const run = await mount(t, withToken('first'));
  await act(async () => run.Socket.last.open());
  await run.update(withToken('second'));
  await act(async () => {
    run.Socket.last.end(3000);
    await run.clock.pass(500);
  });
  await act(async () => run.Socket.last.open());
  assert.equal(JSON.parse(run.Socket.last.sent[0]).token, 'second');
});

test('a component that changes its channels all the time stays in order', async (t) => {
  let setPage;
  const clock = new Clock();
  t.after(() => clock.restore());
  t.mock.method(console, 'error', () => {});
  const Socket = fakeWebSocket();
  function Component() {
    const [page, set] = useState(0);
    setPage = set;
    useCrieur(URL, [{ package: 'p', page: `${page}` }], { WebSocket: Socket });
    return null;
  }
  let root;
  await act(async () => {
    root = create(createElement(StrictMode, null, createElement(Component)));
    await settle();
  });
  for (let page = 1; page <= 20; page += 1) {
    await act(async () => setPage(page));
    if (page === 10) await act(async () => Socket.last.open());
  }
  const pages = Socket.last.sets.map(([{ page }]) => Number(page));
  assert.deepEqual(pages, Array.from({ length: 11 }, (_, at) => at + 10));
  await act(() => root.unmount());
  assert.equal(clock.pending, 0);
});
