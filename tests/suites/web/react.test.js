// The hook, drawn by React's test renderer.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StrictMode, createElement, useEffect, useState } from 'react';
import { act, create } from 'react-test-renderer';
import { useCrieur } from '@crieur/client/react';
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
  assert.deepEqual(first, { list: ['a'], isFirst: true, isResumed: false });
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
  assert.deepEqual(run.state.subscribed, { list: ['a'], isFirst: false, isResumed: false });
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

/** Opens the newest socket, whose list the server answers with this too; then come notifications with these numbers. */
async function accept({ Socket }, answer, ...numbers) {
  const socket = Socket.last;
  await act(async () => {
    socket.open();
    socket.receive({ type: 'subscribed', subscriptions: 1, heartbeat: 25, ...answer });
    for (const n of numbers) notify(socket, n);
  });
}
const notify = (socket, n) => socket.receive({ type: 'notification', id: `e-${n}`, notification: { n } });
const resumed = (id) => ({ id, resumed: true });

/** Breaks the connection, and lets the next one begin. */
async function lose(run) {
  const { length } = run.Socket.all;
  await act(async () => {
    run.Socket.last.end(1006);
    while (run.Socket.all.length === length) await run.clock.pass(100);
  });
}

/** The lists that were sent on each connection. */
const lists = ({ Socket }) => Socket.all.map(({ sent }) => sent.map((text) => JSON.parse(text)));

test('it resumes: a component that loads at each subscribed that is not resumed loads once', async (t) => {
  const clock = new Clock();
  t.after(() => clock.restore());
  t.mock.method(console, 'error', () => {});
  const Socket = fakeWebSocket();
  const run = { clock, Socket };
  const gaps = [];
  let loads = 0;
  let shown = [];
  function Component() {
    const [numbers, setNumbers] = useState([]);
    const { subscribed } = useCrieur(URL, ['a'], {
      WebSocket: Socket,
      onNotification: ({ notification }) => setNumbers((before) => [...before, notification.n]),
      onGap: ({ reason }) => gaps.push(reason),
    });
    useEffect(() => {
      if (subscribed && !subscribed.isResumed) loads += 1;
    }, [subscribed]);
    shown = numbers;
    return null;
  }
  let root;
  await act(async () => {
    root = create(createElement(StrictMode, null, createElement(Component)));
    await settle();
  });
  await accept(run, { id: 'e-0' }, 1, 2);
  assert.equal(loads, 1);
  await lose(run);
  // It is cut off in the middle of what it missed, of which it had one already.
  await accept(run, resumed('e-2'), 2, 3, 4);
  await lose(run);
  await accept(run, resumed('e-4'), 5);
  await act(async () => Socket.last.receive({ type: 'caught-up', id: 'e-7', missed: 1 }));
  await lose(run);
  assert.deepEqual(shown, [1, 2, 3, 4, 5]);
  assert.equal(loads, 1);
  assert.deepEqual(gaps, []);
  await accept(run, { id: 'e-90', resumed: false, reason: 'expired' });
  assert.equal(loads, 2);
  assert.deepEqual(gaps, ['expired']);
  assert.deepEqual(lists(run).map(([{ since }]) => since), ['', 'e-2', 'e-4', 'e-7']);
  await act(() => root.unmount());
});

test('since is shown in the first list, and is that of the beginning only', async (t) => {
  const withSince = (since, subscriptions = ['a']) => ({ url: URL, subscriptions, options: { since } });
  const run = await mount(t, withSince('e-5'));
  await accept(run, resumed('e-5'), 6);
  assert.deepEqual(run.state.subscribed, { list: ['a'], isFirst: true, isResumed: true });
  // An app that keeps the position may give it at each rendering.
  await run.update(withSince(run.state.getPosition()));
  assert.equal(run.Socket.all.length, 1);
  await run.update(withSince('e-1', ['a', 'b']));
  await act(async () => run.Socket.last.receive({ type: 'subscribed', subscriptions: 2, heartbeat: 25, id: 'e-7' }));
  assert.deepEqual(run.state.subscribed, { list: ['a', 'b'], isFirst: false, isResumed: false });
  await lose(run);
  await accept(run, resumed('e-7'));
  assert.deepEqual(run.state.subscribed, { list: ['a', 'b'], isFirst: true, isResumed: true });
  // Cut off before anything of what it missed has come.
  await lose(run);
  await accept(run, resumed('e-7'));
  assert.deepEqual(lists(run), [
    [
      { sender: 'client', subscriptions: ['a'], since: 'e-5' },
      { sender: 'client', subscriptions: ['a', 'b'] },
    ],
    [{ sender: 'client', subscriptions: ['a', 'b'], since: 'e-7' }],
    [{ sender: 'client', subscriptions: ['a', 'b'], since: 'e-7' }],
  ]);
});

test('the latest onGap is called, and a new one is no new connection', async (t) => {
  const seen = [];
  const withHandler = (name) => ({ url: URL, subscriptions: ['a'], options: { onGap: ({ reason }) => seen.push([name, reason]) } });
  const run = await mount(t, withHandler('first'));
  await accept(run, { id: 'e-1' });
  const { subscribed } = run.state;
  await run.update(withHandler('second'));
  await act(async () => run.Socket.last.receive({ type: 'gap', id: 'e-3', reason: 'unknown' }));
  assert.deepEqual(seen, [['second', 'unknown']]);
  // Said again, for the effect that loads.
  assert.notEqual(run.state.subscribed, subscribed);
  assert.equal(run.state.subscribed.isResumed, false);
  await run.update(withHandler('third'));
  await lose(run);
  await accept(run, { id: 'e-9', resumed: false, reason: 'forbidden' });
  assert.deepEqual(seen, [['second', 'unknown'], ['third', 'forbidden']]);
  // Nobody has to listen.
  await run.update({ url: URL, subscriptions: ['a'] });
  await lose(run);
  await accept(run, { id: 'e-9', resumed: false, reason: 'expired' });
  assert.equal(seen.length, 2);
  assert.equal(run.Socket.all.length, 3);
});

test('resume: false shows no position, and each reconnection is a gap', async (t) => {
  const gaps = [];
  const options = { resume: false, onGap: ({ reason }) => gaps.push(reason) };
  const run = await mount(t, { url: URL, subscriptions: ['a'], options });
  await accept(run, {});
  await lose(run);
  await accept(run, {});
  assert.deepEqual(run.state.subscribed, { list: ['a'], isFirst: true, isResumed: false });
  assert.deepEqual(gaps, ['no-history']);
  assert.equal(run.state.getPosition(), null);
  assert.deepEqual(lists(run), Array(2).fill([{ sender: 'client', subscriptions: ['a'] }]));
});

test('getPosition() is the same function at each rendering, and says where the client is or was', async (t) => {
  const positions = [];
  const run = await mount(t, { url: URL, subscriptions: ['a'], options: { onNotification: () => positions.push(getPosition()) } });
  const { getPosition } = run.state;
  assert.equal(getPosition(), null);
  await accept(run, { id: 'e-1' });
  assert.equal(run.state.getPosition, getPosition);
  assert.equal(getPosition(), 'e-1');
  const { renderings } = run;
  await act(async () => notify(run.Socket.last, 2));
  assert.deepEqual(positions, ['e-2'], 'it is that of the notification, in its handler');
  await act(async () => run.Socket.last.receive({ type: 'pong', id: 'e-8' }));
  assert.equal(getPosition(), 'e-8');
  assert.equal(run.renderings, renderings, 'a position is nothing to draw');
  await lose(run);
  assert.equal(getPosition(), 'e-8');
  await run.unmount();
  assert.equal(getPosition(), 'e-8', 'an app may keep it when it ends');
});

test('another mount goes on at the position of the one before', async (t) => {
  const seen = [];
  const onNotification = ({ notification }) => seen.push(notification.n);
  const first = await mount(t, { url: URL, subscriptions: ['a'], options: { onNotification } });
  await accept(first, { id: 'e-0' }, 1, 2);
  await first.unmount();
  first.clock.restore();
  const second = await mount(t, { url: URL, subscriptions: ['a'], options: { onNotification, since: first.state.getPosition() } }, { strict: true });
  assert.equal(second.Socket.all.length, 1);
  assert.equal(second.state.getPosition(), 'e-2');
  await accept(second, resumed('e-2'), 3);
  assert.equal(second.state.subscribed.isResumed, true);
  assert.deepEqual(seen, [1, 2, 3]);
  assert.deepEqual(lists(second), [[{ sender: 'client', subscriptions: ['a'], since: 'e-2' }]]);
});

test('another URL is another history', async (t) => {
  const run = await mount(t, { url: URL, subscriptions: ['a'] });
  await accept(run, { id: 'e-0' }, 1);
  await run.update({ url: 'ws://other/', subscriptions: ['a'] });
  assert.equal(run.state.getPosition(), null);
  await accept(run, { id: 'f-0' });
  assert.deepEqual(lists(run).map(([{ since }]) => since), ['', '']);
  assert.equal(run.state.getPosition(), 'f-0');
});

/** A component that shows what it loads, and what it is notified of; the API has `rows`. */
async function shows(t, rows, { channel = 'a', url = URL, since } = {}) {
  const clock = new Clock();
  t.after(() => clock.restore());
  Math.random = () => 1;
  t.mock.method(console, 'error', () => {});
  const Socket = fakeWebSocket();
  const run = { clock, Socket, said: [], loads: 0 };
  function Rows({ url, channel }) {
    const [shown, setShown] = useState([]);
    const add = (more) => setShown((before) => [...new Set([...before, ...more])].sort());
    const { subscribed } = useCrieur(url, [channel], {
      WebSocket: Socket,
      since,
      onNotification: ({ notification }) => add([notification.row]),
    });
    useEffect(() => {
      if (subscribed) run.said.push(`${channel} ${subscribed.isResumed}`);
      if (!subscribed || subscribed.isResumed) return;
      run.loads += 1;
      Promise.resolve(rows[channel]).then((all) => add([...all]));
    }, [subscribed]);
    run.shown = shown;
    return null;
  }
  const draw = (props) => createElement(Rows, props);
  await act(async () => {
    run.root = create(draw({ url, channel }));
    await settle();
  });
  run.update = (props) =>
    act(async () => {
      run.root.update(draw({ url, channel, ...props }));
      await settle();
    });
  return run;
}

test('what has to be loaded is said though the connection breaks before it is drawn', async (t) => {
  const rows = { a: [1, 2] };
  const run = await shows(t, rows);
  // The answer and the Close in one go, as an app gets them that was suspended.
  await act(async () => {
    run.Socket.last.accept(25, { id: 'p1' });
    run.Socket.last.end(1001, '{"reason":"shutdown","retry":1000}');
  });
  await act(async () => run.clock.pass(1_000));
  await act(async () => run.Socket.last.accept(25, { id: 'p1', resumed: true }));
  assert.deepEqual(run.shown, [1, 2]);
  assert.equal(run.loads, 1);
  await act(async () => run.Socket.last.end(1006));
  rows.a.push(3);
  await act(async () => run.clock.pass(1_000));
  await act(async () => {
    run.Socket.last.accept(25, { id: 'p9', resumed: false, reason: 'expired' });
    run.Socket.last.end(1006);
  });
  await act(async () => run.clock.pass(5_000));
  await act(async () => run.Socket.last.open());
  await act(async () => run.Socket.last.acknowledge(25, { id: 'p9', resumed: true }));
  assert.deepEqual(run.shown, [1, 2, 3]);
  assert.equal(run.loads, 2);
  await act(async () => run.Socket.last.end(1006));
  await act(async () => run.clock.pass(5_000));
  await act(async () => run.Socket.last.open());
  await act(async () => run.Socket.last.acknowledge(25, { id: 'p9', resumed: true }));
  assert.equal(run.loads, 2, 'what was drawn is not owed any more');
  assert.equal(run.said.at(-1), 'a true');
});

test('since is of the first list: another list with another URL loads its rows', async (t) => {
  const run = await shows(t, { a: [1], b: [3, 4] }, { since: 'p5' });
  await act(async () => run.Socket.last.open());
  assert.equal(run.Socket.last.lists[0].since, 'p5');
  await act(async () => run.Socket.last.acknowledge(25, { id: 'p5', resumed: true }));
  await run.update({ channel: 'b' });
  await run.update({ channel: 'b', url: 'ws://other/' });
  await act(async () => run.Socket.last.open());
  assert.equal(run.Socket.last.lists[0].since, '');
  await act(async () => run.Socket.last.acknowledge(25, { id: 'p7' }));
  assert.deepEqual(run.said, ['a true', 'b false']);
  assert.deepEqual(run.shown, [3, 4]);
  // Back at the first list, at a third URL, with the state of the beginning and more.
  await run.update({ channel: 'a', url: 'ws://third/' });
  await act(async () => run.Socket.last.open());
  assert.equal(run.Socket.last.lists[0].since, 'p5');
});

test('back from a list that was refused, the one that stayed in force is said to be', async (t) => {
  const run = await mount(t, { url: URL, subscriptions: ['a'] });
  await act(async () => run.Socket.last.accept(25, { id: 'p1' }));
  await run.update({ url: URL, subscriptions: [{}] });
  assert.equal(run.state.subscribed, null);
  await act(async () => run.Socket.last.receive({ type: 'error', error: { code: 'invalid-subscription', detail: '' } }));
  assert.equal(run.state.subscribed, null);
  await run.update({ url: URL, subscriptions: ['a'] });
  assert.deepEqual(run.Socket.last.sets, [['a'], [{}]]);
  assert.deepEqual(run.state.subscribed.list, ['a']);
});
