// An app as Metro bundles it for React Native; metro.test.js runs it in engines that have neither sockets
// nor timers nor a server. React Native brings the first two, so here they are made of what there is:
// a clock that the app turns, and sockets whose other end keeps a history as docs/protocol.md says.

import { createElement, useEffect } from 'react';
import { create } from 'react-test-renderer';
import { Crieur, CrieurError } from '@crieur/client';
import { useCrieur } from '@crieur/client/react';

let now = 1_700_000_000_000;
const timers = new Map();
let nextTimer = 1;
Date.now = () => now;
globalThis.setTimeout = (then, delay = 0) => {
  timers.set(nextTimer, { due: now + delay, then });
  return nextTimer++;
};
globalThis.clearTimeout = (id) => timers.delete(id);
globalThis.setImmediate = (then) => setTimeout(then);

/** Lets every promise that can go on go on. */
async function settle() {
  for (let turn = 0; turn < 20; turn += 1) await null;
}

async function pass(ms) {
  await settle();
  for (const end = now + ms; ; await settle()) {
    const [id, timer] = [...timers].sort(([, a], [, b]) => a.due - b.due)[0] ?? [];
    if (timer === undefined || timer.due > end) {
      now = end;
      return;
    }
    timers.delete(id);
    now = Math.max(now, timer.due);
    timer.then();
  }
}

/** What was published, and the sockets of those who are there. */
const server = {
  history: [],
  sockets: new Set(),
  lists: [],

  publish(n) {
    this.history.push(n);
    for (const socket of this.sockets) if (socket.isSubscribed) socket.receive(delivery(n));
  },
  cut() {
    // React Native says neither a code nor a reason.
    for (const socket of this.sockets) socket.onclose({ code: undefined, reason: undefined });
    this.sockets.clear();
  },
  take(socket, { subscriptions, since }) {
    this.lists.push(since);
    const end = this.history.length;
    const id = `e-${end}`;
    socket.isSubscribed = true;
    const answer = { type: 'subscribed', subscriptions: subscriptions.length, heartbeat: 25 };
    if (since === '') {
      socket.receive({ ...answer, id });
    } else if (since.startsWith('e-')) {
      const missed = this.history.slice(Number(since.slice(2)));
      socket.receive({ ...answer, id: since, resumed: true });
      for (const n of missed) socket.receive(delivery(n));
      socket.receive({ type: 'caught-up', id, missed: missed.length });
    } else {
      socket.receive({ ...answer, id, resumed: false, reason: 'unknown' });
    }
  },
};
const delivery = (n) => ({ type: 'notification', id: `e-${server.history.indexOf(n) + 1}`, notification: { channel: 'a', n } });

globalThis.WebSocket = class {
  isSubscribed = false;
  constructor() {
    server.sockets.add(this);
    setTimeout(() => this.onopen?.({}), 10);
  }
  send(text) {
    const message = JSON.parse(text);
    setTimeout(() => {
      if (message.type === 'ping') this.receive({ type: 'pong', id: `e-${server.history.length}` });
      else server.take(this, message);
    }, 10);
  }
  receive(message) {
    this.onmessage({ data: JSON.stringify(message) });
  }
  close() {
    server.sockets.delete(this);
  }
};

/** `AppState`. */
const appState = {
  currentState: 'active',
  addEventListener(event, handler) {
    this.become = (state) => handler((this.currentState = state));
    return { remove: () => (this.become = null) };
  },
};

const said = [];

async function useTheClient() {
  const client = new Crieur('ws://test/', { appState, since: 'x-1' });
  client.on('subscribed', ({ isResumed }) => said.push(`subscribed, ${isResumed}`));
  client.on('resumed', ({ missed }) => said.push(`resumed, ${missed} missed`));
  client.on('gap', ({ reason }) => said.push(`gap: ${reason}`));
  client.on('notification', ({ id, notification }) => said.push(`${notification.n}: ${id}`));
  client.on('error', (error) => said.push(`error: ${error.code}, ${error instanceof CrieurError}, ${error.name}`));
  client.on('notification', ({ notification }) => {
    if (notification.n === 1) throw new Error('of a handler');
  });
  client.subscribe(['a']).then(({ subscriptions }) => said.push(`${subscriptions} in force`));
  await pass(100);
  server.publish(1);
  appState.become('background');
  server.cut();
  server.publish(2);
  server.publish(3);
  appState.become('active');
  await pass(100);
  server.publish(4);
  await pass(40_000);
  for (const socket of server.sockets) socket.onmessage({ data: 'nonsense' });
  said.push([client.status, client.position, client.roundTrip].join(', '));
  client.close();
  await client.subscribe(['b']).catch((error) => said.push(`error: ${error.code}`));
  said.push(`${timers.size} timers`);
}

async function useTheHook() {
  let getPosition;
  function Component() {
    const { status, subscribed, ...state } = useCrieur('ws://test/', ['a'], {
      since: 'e-3',
      onNotification: ({ notification }) => said.push(`hook: ${notification.n}`),
      onGap: ({ reason }) => said.push(`hook: gap: ${reason}`),
    });
    ({ getPosition } = state);
    useEffect(() => {
      if (subscribed) said.push(`hook: subscribed, ${subscribed.isResumed}`);
    }, [subscribed]);
    return status;
  }
  const root = create(createElement(Component));
  await pass(100);
  said.push(`hook: ${root.toJSON()}`);
  server.cut();
  server.publish(5);
  await pass(600);
  said.push(`hook: ${getPosition()}`);
  root.unmount();
  await pass(100);
  said.push(`hook: ${server.sockets.size} sockets`);
}

console.error = (error) => said.push(`error: ${error.message}`);
useTheClient()
  .then(useTheHook)
  .catch((error) => said.push(String(error.stack)))
  .then(() => print(JSON.stringify({ said, lists: server.lists })));
