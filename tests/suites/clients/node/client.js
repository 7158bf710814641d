// Shows that Node's `ws` subscribes, publishes, pings and closes.
//
//     tests/suites/clients/run node

'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');
const { readFileSync } = require('node:fs');
const path = require('node:path');
const WebSocket = require('ws');

const address = process.argv[2];
const run = `node-${process.pid}`;
const template = readFileSync(path.join(__dirname, '..', 'notification.json'), 'utf8').trimEnd();
const DEADLINE_MS = 30_000;

// Fragments of 7 bytes cut through characters; an empty one and a Ping come in between.
const ways = {
  whole: (publisher, message) => publisher.send(message),
  'without offering compression': (publisher, message) => publisher.send(message),
  'in fragments': (publisher, message) => {
    const payload = Buffer.from(message);
    for (let start = 0; start < payload.length; start += 7) {
      publisher.send(payload.subarray(start, start + 7), { fin: false, binary: false });
    }
    publisher.ping('between fragments');
    publisher.send('', { fin: true, binary: false });
  },
  large: (publisher, message) => publisher.send(message),
};

async function main() {
  const page = (...channel) => ({ package: 'clients', page: `page-${run}`, filters: { values: { channel } } });
  const marker = `{"channel":"marker-${run}","message":"end"}`;
  const deliveredMarker = `{"type":"refreshcontent","notification":${marker}}`;
  const subscriber = await subscribe({ perMessageDeflate: true }, [page('2', '5'), `marker-${run}`]);
  const bystander = await subscribe({ perMessageDeflate: false }, [page('3'), `marker-${run}`]);

  for (const [name, way] of Object.entries(ways)) {
    const options = { perMessageDeflate: !name.startsWith('without') };
    const id = name === 'large' ? 'grand é '.repeat(30_000) : `node ${name}`;
    const notification = template.replace('@RUN@', run).replace('@ID@', id);
    await publish(way, options, `{"sender":"server","notification":${notification}}`, 1);
    await publish(ways.whole, options, `{"sender":"server","type":"refreshcontent","notification":${marker}}`, 2);
    assert.equal(await subscriber.next(), `{"type":"notification","notification":${notification}}`);
    assert.equal(await subscriber.next(), deliveredMarker);
    assert.equal(await bystander.next(), deliveredMarker);
    console.log(`node: published ${name}`);
  }

  await ping(subscriber);
  subscriber.socket.close(1000);
  const [code] = await once(subscriber.socket, 'close');
  assert.equal(code, 1000);
  bystander.socket.close();
}

/** An open connection, and `next()` for its messages in their order. */
async function open(options) {
  const socket = new WebSocket(`ws://${address}/`, options);
  const messages = [];
  let wake = () => {};
  socket.on('message', (data, isBinary) => {
    messages.push(isBinary ? data : data.toString());
    wake();
  });
  socket.on('error', fail);
  await once(socket, 'open');
  assert.equal(socket.extensions, '', 'compression is declined');
  const next = async () => {
    while (messages.length === 0) await new Promise((resolve) => (wake = resolve));
    return messages.shift();
  };
  return { socket, next };
}

async function subscribe(options, subscriptions) {
  const connection = await open(options);
  connection.socket.send(JSON.stringify({ sender: 'client', subscriptions }));
  const answer = JSON.parse(await connection.next());
  assert.deepEqual([answer.type, answer.subscriptions], ['subscribed', subscriptions.length]);
  return connection;
}

async function publish(way, options, message, count) {
  const { socket } = await open(options);
  socket.on('message', (data) => fail(new Error(`a publisher was answered ${data}`)));
  way(socket, message);
  const [code, reason] = await once(socket, 'close');
  assert.deepEqual([code, withoutId(reason.toString())], [1000, `{"delivered":${count}}`]);
}

/** A receipt without its id, whose form is checked. */
function withoutId(receipt) {
  assert.match(receipt, /,"id":"[0-9a-f]{16}-[1-9][0-9]*"/);
  return receipt.replace(/,"id":"[^"]*"/, '');
}

async function ping({ socket, next }) {
  for (const payload of ['', 'é'.repeat(62)]) {
    socket.ping(payload);
    const [answer] = await once(socket, 'pong');
    assert.equal(answer.toString(), payload);
  }
  socket.send('{"type":"ping"}');
  assert.deepEqual(JSON.parse(await next()), { type: 'pong' });
  console.log('node: pings are answered');
}

function fail(error) {
  console.error(error);
  process.exit(1);
}

setTimeout(() => fail(new Error(`not done after ${DEADLINE_MS} ms`)), DEADLINE_MS).unref();
main().catch(fail);
