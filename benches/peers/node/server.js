// A server on Node's `ws`.
//
// A notification becomes a frame once, by the library's own `Sender.frame`, and the same buffer is
// written to the socket of every subscriber: the library's `send` would build a frame for each.
// Sockets stay corked until a turn of the loop brings nothing more to say, so that all that a
// subscriber gets leaves in one system call. Deflate is off, and `bufferutil` unmasks.
'use strict';

const { Sender, WebSocketServer } = require('ws');

const KEPT_PATH = '/publish';
const BACKLOG = 4096;
const MESSAGE_BYTES_MAX = 1024 * 1024;
/** A subscriber that is further behind is cut off. */
const SEND_QUEUE_BYTES_MAX = 1024 * 1024;
/** The loop accepts one connection a turn: publishers that come at once come in as many turns. */
const CORKED_TURNS_MAX = 64;
const PONG = '{"type":"pong"}';

/** @type {Map<string, Set<Connection>>} the subscribers of each topic. */
const subscribers = new Map();
/** Connections whose sockets are corked, for how many turns, and whether this one added to it. */
let corked = [];
let corkedTurns = 0;
let isQuiet = true;

class Connection {
  constructor(ws, kept) {
    this.ws = ws;
    this.socket = ws._socket;
    this.kept = kept;
    this.topics = new Set();
    this.corked = false;
  }

  subscribe(topics) {
    for (const topic of this.topics) {
      const set = subscribers.get(topic);
      set.delete(this);
      if (set.size === 0) subscribers.delete(topic);
    }
    for (const topic of topics) {
      const set = subscribers.get(topic);
      if (set === undefined) subscribers.set(topic, new Set([this]));
      else set.add(this);
    }
    this.topics = topics;
  }

  cork() {
    isQuiet = false;
    if (this.corked) return;
    this.corked = true;
    this.socket.cork();
    if (corked.length === 0) setImmediate(endTurn);
    corked.push(this);
  }

  answer(text) {
    this.cork();
    this.ws.send(text);
  }

  pong(payload) {
    // The library's own pongs leave one by one, and sixty at once are too many for it.
    if (this.socket.writableLength > SEND_QUEUE_BYTES_MAX) return this.ws.terminate();
    this.cork();
    this.ws.pong(payload);
  }

  /** Queues a whole frame; whether there was room for it. */
  deliver(frame) {
    if (this.socket.writableLength > SEND_QUEUE_BYTES_MAX) return false;
    this.cork();
    this.socket.write(frame);
    return true;
  }
}

function endTurn() {
  corkedTurns += 1;
  if (!isQuiet && corkedTurns < CORKED_TURNS_MAX) {
    isQuiet = true;
    return setImmediate(endTurn);
  }
  const connections = corked;
  corked = [];
  corkedTurns = 0;
  for (const connection of connections) {
    connection.corked = false;
    connection.socket.uncork();
  }
}

function publish(topic, frame) {
  let delivered = 0;
  const tooSlow = [];
  for (const connection of subscribers.get(topic) ?? []) {
    if (connection.deliver(frame)) delivered += 1;
    else tooSlow.push(connection);
  }
  for (const connection of tooSlow) {
    connection.subscribe(new Set());
    connection.ws.terminate();
  }
  return tooSlow.length === 0
    ? `"delivered":${delivered}`
    : `"delivered":${delivered},"dropped":${tooSlow.length}`;
}

function frameOf(type, notification) {
  const payload = Buffer.concat([
    Buffer.from(`{"type":${JSON.stringify(type)},"notification":`), notification, Buffer.from('}'),
  ]);
  return Buffer.concat(Sender.frame(payload, { fin: true, rsv1: false, opcode: 1, mask: false, readOnly: true }));
}

function handle(connection, data, isBinary) {
  if (isBinary) return connection.ws.close(1003);
  let message;
  try {
    message = JSON.parse(data);
  } catch {
    return connection.answer(error('invalid-json', 'expected JSON'));
  }
  if (message?.sender === 'server') return handlePublish(connection, message, data);
  if (message?.sender === 'client' && 'subscriptions' in message) {
    return handleSubscribe(connection, message.subscriptions);
  }
  connection.answer(message?.type === 'ping' ? PONG : error('unknown-message', 'no such message'));
}

function handlePublish(connection, { notification, type = 'notification' }, data) {
  const topic = topicOf(notification);
  if (topic === undefined) {
    return connection.answer(error('invalid-notification', 'a package, page and channel are needed'));
  }
  const counts = publish(topic, frameOf(type, memberBytes(data, 'notification')));
  if (connection.kept) connection.answer(`{"type":"published",${counts}}`);
  else connection.ws.close(1000, `{${counts}}`);
}

function handleSubscribe(connection, subscriptions) {
  const topics = new Set();
  if (!Array.isArray(subscriptions) || !subscriptions.every((one) => addTopics(one, topics))) {
    return connection.answer(error('invalid-subscription', 'a package, page and channel are needed'));
  }
  connection.subscribe(topics);
  connection.answer(`{"type":"subscribed","subscriptions":${subscriptions.length},"heartbeat":25}`);
}

/** The one topic of a notification: by package, page and channel, or by channel alone. */
function topicOf(notification) {
  if (typeof notification?.package === 'string' && typeof notification.page === 'string') {
    const channel = notification.filters?.values?.channel;
    return isScalar(channel) ? `${notification.package}\0${notification.page}\0${channel}` : undefined;
  }
  return isScalar(notification?.channel) ? String(notification.channel) : undefined;
}

function addTopics(subscription, topics) {
  if (typeof subscription === 'string') {
    topics.add(subscription);
    return true;
  }
  const channels = [subscription?.filters?.values?.channel].flat();
  if (typeof subscription?.package !== 'string' || typeof subscription.page !== 'string') return false;
  for (const channel of channels) topics.add(`${subscription.package}\0${subscription.page}\0${channel}`);
  return channels.every(isScalar);
}

function isScalar(value) {
  return typeof value === 'string' || typeof value === 'number';
}

function error(code, detail) {
  return JSON.stringify({ type: 'error', error: { code, detail } });
}

/** The bytes of a member of an object, as they were sent; `json` is valid. */
function memberBytes(json, name) {
  const wanted = Buffer.from(`"${name}"`);
  let at = json.indexOf(0x7b) + 1;
  for (;;) {
    const keyAt = skipSpace(json, at);
    const keyEnd = skipString(json, keyAt);
    const valueAt = skipSpace(json, skipSpace(json, keyEnd) + 1);
    const valueEnd = skipValue(json, valueAt);
    if (wanted.equals(json.subarray(keyAt, keyEnd))) return json.subarray(valueAt, valueEnd);
    at = skipSpace(json, valueEnd) + 1;
    // Its name was written with escapes.
    if (at >= json.length) return Buffer.from(JSON.stringify(JSON.parse(json)[name]));
  }
}

function skipSpace(json, at) {
  while (json[at] <= 0x20) at += 1;
  return at;
}

function skipString(json, at) {
  at += 1;
  while (json[at] !== 0x22) at += json[at] === 0x5c ? 2 : 1;
  return at + 1;
}

function skipValue(json, at) {
  let depth = 0;
  for (;;) {
    const byte = json[at];
    if (byte === 0x22) at = skipString(json, at);
    else if (byte === 0x7b || byte === 0x5b) { depth += 1; at += 1; }
    else if (byte === 0x7d || byte === 0x5d) { depth -= 1; at += 1; }
    else if (depth > 0) { at += 1; continue; }
    else {
      // A number or a word, up to what can't be part of one.
      while (json[at] > 0x20 && json[at] !== 0x2c && json[at] !== 0x7d) at += 1;
      return at;
    }
    if (depth === 0) return at;
  }
}

function main() {
  const [flag, address = ''] = process.argv.slice(2);
  const found = /^(.+):(\d+)$/.exec(address);
  if (flag !== '--listen' || found === null) {
    console.error('usage: node server.js --listen HOST:PORT');
    process.exit(2);
  }
  const [, host, port] = found;
  const server = new WebSocketServer({
    host, port: Number(port), backlog: BACKLOG, maxPayload: MESSAGE_BYTES_MAX,
    perMessageDeflate: false, clientTracking: false, autoPong: false,
  });
  server.on('listening', () => console.log(`listening on ${host}:${server.address().port}`));
  server.on('connection', (ws, request) => {
    const connection = new Connection(ws, request.url.split('?')[0] === KEPT_PATH);
    ws.on('message', (data, isBinary) => handle(connection, data, isBinary));
    ws.on('ping', (payload) => connection.pong(payload));
    ws.on('close', () => connection.subscribe(new Set()));
    // However a connection ends, there is nobody left to tell; `close` follows.
    ws.on('error', () => {});
  });
}

main();
