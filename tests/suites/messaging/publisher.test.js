// Crieur.php against the real server, and against ones that are down, silent, slow, or answer nonsense.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import net from 'node:net';
import { after, before, test } from 'node:test';
import { Application, Client, PRODUCTION, publish, reader, until } from './application.js';

/** What scheduling and the interpreter may add to a time-out on a busy machine. */
const SLACK_MS = 400;

let application;
before(async () => {
  application = await Application.start(['--restart-seconds', '60']);
});
after(() => application?.stop());

/** A server of the test's own: `answer` gets each socket and what it has sent so far. */
async function server(t, answer) {
  const sockets = new Set();
  const listener = net.createServer((socket) => {
    sockets.add(socket);
    let text = Buffer.alloc(0);
    socket.on('error', () => {});
    socket.on('data', (more) => {
      text = Buffer.concat([text, more]);
      answer(socket, text);
    });
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  t.after(() => {
    listener.close();
    for (const socket of sockets) socket.destroy();
  });
  return `tcp://127.0.0.1:${listener.address().port}`;
}

/** Upgrades as RFC 6455 says; what comes behind the request's head is handed on once. */
function upgraded(then) {
  const done = new WeakSet();
  return (socket, received) => {
    const end = received.indexOf('\r\n\r\n');
    if (end < 0) return;
    if (!done.has(socket)) {
      done.add(socket);
      const key = /sec-websocket-key: *(\S+)/i.exec(received.toString())[1];
      const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
      socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
    }
    then(socket, received.subarray(end + 4));
  };
}

const responds = (status, body = '', fields = '') => (socket, received) => {
  if (received.includes('\r\n\r\n')) socket.end(`HTTP/1.1 ${status} X\r\n${fields}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
};
const close = (status, reason) => {
  const payload = Buffer.concat([Buffer.from([status >> 8, status & 255]), Buffer.from(reason)]);
  return Buffer.concat([Buffer.from([0x88, payload.length]), payload]);
};
const textFrame = (text) => Buffer.concat([Buffer.from([0x81, text.length]), Buffer.from(text)]);

const notification = { channel: PRODUCTION, text: 'Bonjour' };

async function fails(address, error, options = {}) {
  const result = await publish(address, notification, options);
  assert.deepEqual([result.delivered, result.error, result.thrown], [null, error, error], result.detail);
  return result;
}

test('the real server: delivered to all who want it, whatever the length and the letters', async (t) => {
  const bob = await application.user('bob');
  const channel = reader(bob.channels[PRODUCTION]);
  const clients = await Promise.all([1, 2].map(() => Client.connect(t, application.addresses.clients)));
  for (const client of clients) await client.subscribe([channel], bob.token);
  for (const length of [0, 1, 125, 126, 1000, 65_535, 65_536, 500_000]) {
    const text = 'é'.repeat(length / 2);
    const result = await application.publish({ ...channel, text });
    assert.deepEqual([result.delivered, result.dropped, result.error, result.thrown], [2, 0, null, null], `${length}`);
    for (const client of clients) {
      await until(() => client.notifications.at(-1)?.notification.text === text, `${length} bytes have come`);
    }
  }
  const { results } = await application.publish(channel, { count: 3, type: 'refreshcontent' });
  assert.deepEqual(results.map(({ delivered }) => delivered), [2, 2, 2]);
  await until(() => clients[0].notifications.at(-1).type === 'refreshcontent', 'its type has come');
  assert.equal((await application.publish({ channel: 'nobody' })).delivered, 0);
});

test('the real server: what it refuses is told', async () => {
  const { publish: lane } = application.addresses;
  assert.match((await fails(lane, 'refused', { token: 'wrong' })).detail, /forbidden/);
  assert.match((await fails(lane, 'refused')).detail, /forbidden/);
  const bad = await application.publish({ package: 'without a page' });
  assert.deepEqual([bad.error, bad.delivered], ['invalid', null]);
  assert.match(bad.detail, /invalid-notification/);
});

test('what is no JSON is not sent', async () => {
  const result = await application.publish(notification, { bytes: Buffer.from([0xff]).toString('base64') });
  assert.deepEqual([result.error, result.thrown], ['invalid', 'invalid']);
});

test('over HTTP where the server has it, else over WebSocket', async (t) => {
  assert.deepEqual((await application.publish(notification, { way: 'http' })).error, null, 'the real server');
  for (const status of [404, 405, 426]) {
    const seen = [];
    const upgrade = upgraded((socket, frames) => frames.length > 0 && socket.end(close(1000, '{"delivered":4}')));
    const address = await server(t, (socket, received) => {
      const method = received.toString('latin1').slice(0, 4);
      if (!seen.includes(socket)) seen.push(socket);
      (method === 'POST' ? responds(status) : upgrade)(socket, received);
    });
    const { results } = await publish(address, notification, { way: 'http', count: 2 });
    assert.deepEqual(results.map(({ delivered }) => delivered), [4, 4], `${status}`);
    assert.equal(seen.length, 3, 'asked once for the whole call');
  }
  let request;
  const http = await server(t, (socket, received) => {
    request = received.toString();
    if (request.endsWith('}}')) responds(200, '{"delivered":3,"dropped":1}')(socket, received);
  });
  const result = await publish(http, notification, { way: 'http', token: 'secret' });
  assert.deepEqual([result.delivered, result.dropped], [3, 1]);
  assert.match(request, /^POST \/publish HTTP\/1\.1\r\n/);
  assert.match(request, /\r\nAuthorization: Bearer secret\r\n/);
  assert.deepEqual(JSON.parse(request.split('\r\n\r\n')[1]), { sender: 'server', type: 'notification', notification });
  const error = (code) => `{"type":"error","error":{"code":"${code}","detail":"why"}}`;
  await fails(await server(t, responds(401, error('forbidden'))), 'refused', { way: 'http' });
  await fails(await server(t, responds(400, error('invalid-notification'))), 'invalid', { way: 'http' });
  await fails(await server(t, responds(503, 'full')), 'refused', { way: 'http' });
  await fails(await server(t, responds(200, 'welcome')), 'protocol', { way: 'http' });
});

test('a server that is down: told at once', async (t) => {
  const gone = net.createServer().listen(0, '127.0.0.1');
  await once(gone, 'listening');
  const { port } = gone.address();
  gone.close();
  await once(gone, 'close');
  for (const address of [`tcp://127.0.0.1:${port}`, 'unix:///nowhere/publish.sock', 'no address']) {
    const { millis } = await fails(address, 'unreachable');
    assert.ok(millis < 200 + SLACK_MS, `${address}: ${millis} ms`);
  }
  // The API goes on without it; only what was not told is told so.
  process.kill(application.pid('crieur'), 'SIGKILL');
  process.kill(application.pid('apps-crieur'), 'SIGSTOP');
  t.after(() => process.kill(application.pid('apps-crieur'), 'SIGCONT'));
  const alice = await application.user('alice');
  const began = performance.now();
  const { message, notified } = await alice.say(PRODUCTION, 'kept');
  assert.ok(performance.now() - began < 1000 + SLACK_MS, 'all servers together take no longer than the time-out');
  assert.equal(notified, false);
  const { messages } = await alice.call('message', 'list', { channelid: alice.channels[PRODUCTION] });
  assert.deepEqual(messages.at(-1), message);
  assert.match(application.log('api'), /not notified: unreachable.*not notified: timeout/s);
});

test('an address that swallows what is sent to it: the time to connect', async (t) => {
  // A listener whose queue is full answers no further SYN.
  const full = await fullListener(t);
  if (full === null) return t.skip('this system has no such listener');
  const { millis } = await fails(full, 'unreachable');
  assert.ok(millis >= 190 && millis < 200 + SLACK_MS, `${millis} ms`);
});

/** A listener that accepts nothing, with as many connections as its queue takes. */
async function fullListener(t) {
  const script = 'import socket,time\ns=socket.socket();s.bind(("127.0.0.1",0));s.listen(0);print(s.getsockname()[1],flush=True);time.sleep(60)';
  const child = spawn('python3', ['-c', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => child.kill());
  const port = Number(String((await once(child.stdout, 'data'))[0]));
  for (let count = 0; count < 5; count += 1) {
    const socket = net.connect(port, '127.0.0.1');
    socket.on('error', () => {});
    t.after(() => socket.destroy());
    const isOpen = await Promise.race([once(socket, 'connect').then(() => true), new Promise((resolve) => setTimeout(resolve, 300, false))]);
    if (!isOpen) return `tcp://127.0.0.1:${port}`;
  }
  return null;
}

test('a server that is silent: the time-out, for all notifications of the call together', async (t) => {
  const silences = {
    'before the 101': () => {},
    'behind the 101': upgraded(() => {}),
    'in the middle of a Close': upgraded((socket, frames) => frames.length > 0 && socket.write(close(1000, '{"delivered":4}').subarray(0, 5))),
    'in the middle of the head': (socket) => socket.write('HTTP/1.1 101 Swi'),
  };
  for (const [name, answer] of Object.entries(silences)) {
    const address = await server(t, answer);
    const { results, millis } = await fails(address, 'timeout', { totalSeconds: 0.5, count: 3 });
    assert.ok(millis >= 490 && millis < 500 + SLACK_MS, `${name}: ${millis} ms`);
    assert.deepEqual(results.map(({ error }) => error), ['timeout', 'timeout', 'timeout']);
  }
  const { millis } = await fails(await server(t, () => {}), 'timeout', { way: 'http' });
  assert.ok(millis >= 990 && millis < 1000 + SLACK_MS, `a second by default: ${millis} ms`);
});

test('a server that takes nothing: the time-out', async (t) => {
  const address = await server(t, upgraded((socket) => socket.pause()));
  const result = await publish(address, { channel: 'x', text: 'x'.repeat(20_000_000) }, { totalSeconds: 0.5 });
  assert.equal(result.error, 'timeout');
  assert.ok(result.millis < 500 + SLACK_MS + 500, `${result.millis} ms`);
});

test('a server that is slow: byte by byte it is understood, or given up in time', async (t) => {
  const dribble = (ms) => {
    const begun = new WeakSet();
    return upgraded((socket, frames) => {
      if (frames.length === 0 || begun.has(socket)) return;
      begun.add(socket);
      const bytes = [...Buffer.concat([Buffer.from([0x89, 1, 0x2a]), textFrame('{}'), close(1000, '{"delivered":4}')])];
      const timer = setInterval(() => (bytes.length > 0 ? socket.write(Buffer.from([bytes.shift()])) : clearInterval(timer)), ms);
      t.after(() => clearInterval(timer));
    });
  };
  assert.equal((await publish(await server(t, dribble(5)), notification)).delivered, 4);
  const { millis } = await fails(await server(t, dribble(200)), 'timeout');
  assert.ok(millis < 1000 + SLACK_MS, `${millis} ms`);
});

test('a server that answers nonsense: told, and never a warning', async (t) => {
  const after101 = (bytes) => upgraded((socket, frames) => frames.length > 0 && socket.end(bytes));
  const nonsense = {
    'another protocol': (socket) => socket.end('SSH-2.0-OpenSSH_9.2\r\n'),
    'another protocol with an empty line': (socket) => socket.end('220 hello\r\n\r\n'),
    'nothing at all': (socket) => socket.end(),
    'a reset': (socket) => socket.resetAndDestroy(),
    'a head without end': (socket) => socket.write('x'.repeat(200_000)),
    'a 101 for somebody else': (socket) => socket.write('HTTP/1.1 101 X\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n'),
    'a 101 and the end': upgraded((socket) => socket.end()),
    'a masked frame': after101(Buffer.from([0x88, 0x80, 0, 0, 0, 0])),
    'a reserved bit': after101(Buffer.from([0xc1, 0])),
    'a fragment': after101(Buffer.from([0x01, 0])),
    'a huge frame': after101(Buffer.from([0x81, 127, 0x7f, 255, 255, 255, 255, 255, 255, 255])),
    'a negative length': after101(Buffer.from([0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255])),
    'a Close that says nothing': after101(close(1000, '')),
    'a Close that says something else': after101(close(1000, '{"delivered":"all"}')),
    'half a frame': after101(close(1000, '{"delivered":4}').subarray(0, 9)),
  };
  for (const [name, answer] of Object.entries(nonsense)) {
    const { error, thrown, millis, detail } = await publish(await server(t, answer), notification);
    assert.deepEqual([name, error, thrown], [name, 'protocol', 'protocol'], detail);
    assert.ok(millis < 1000 + SLACK_MS, `${name}: ${millis} ms`);
  }
  await fails(await server(t, responds(200, 'welcome')), 'refused');
  await fails(await server(t, responds(503)), 'refused');
  await fails(await server(t, after101(close(1013, '{"reason":"overload","retry":900}'))), 'refused');
  await fails(await server(t, after101(Buffer.from([0x88, 0]))), 'refused');
});
