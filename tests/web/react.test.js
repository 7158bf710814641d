// The hook, drawn by React's test renderer.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StrictMode, createElement, useState } from 'react';
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
  const run = { clock, Socket, complaints, state: null, renderings: 0 };
  function Component({ url, subscriptions, options }) {
    run.renderings += 1;
    run.state = useCrieur(url, subscriptions, { WebSocket: Socket, ...options });
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
