// The PHP package crieur/client against the real server, and against ones that are down, silent, slow, or answer nonsense.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import tls from 'node:tls';
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

/** The same of a server without a history: it has no position. */
function older(then) {
  const upgrade = upgraded(then);
  return (socket, received) => (received.toString('latin1').startsWith('GET /position ') ? responds(404) : upgrade)(socket, received);
}

const responds = (status, body = '', fields = '') => (socket, received) => {
  if (received.includes('\r\n\r\n')) socket.end(`HTTP/1.1 ${status} X\r\n${fields}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
};

/**
 * A server that keeps all that is published to it, in every way. `answer` gets the number of what it got, from 0, and
 * gives `SILENCE`, `BREAK`, a receipt or an error, now or later; `position` answers `GET /position`. Of a request with several
 * notifications it answers the first for all, unless that is a receipt. A connection at /publish stays.
 */
async function publishing(t, answer, position = responds(200, '{"id":"e-7"}')) {
  const got = [];
  const asked = new Set();
  const opened = new Set();
  const requests = [];
  const done = new WeakSet();
  const take = (socket, text, write) => {
    const request = JSON.parse(text);
    const first = got.length;
    const messages = [request].flat();
    got.push(...messages);
    requests.push(messages.length);
    Promise.all(messages.map((_, index) => answer(first + index))).then((all) => {
      const said = all.find((each) => each === SILENCE || each === BREAK || each.error) ?? (Array.isArray(request) ? all : all[0]);
      if (said === BREAK) socket.destroy();
      else if (said !== SILENCE) write(said, JSON.stringify(said));
    });
  };
  const takeOnce = (socket, text, write) => {
    if (done.has(socket)) return;
    done.add(socket);
    take(socket, text, write);
  };
  const ephemeral = upgraded((socket, frame) => {
    if (frame.length === 0) return;
    takeOnce(socket, unmasked(frame), ({ error }, text) => {
      socket.write(error ? Buffer.concat([textFrame(text), close(1008, '')]) : close(1000, text));
    });
  });
  const taken = new WeakMap();
  const staying = upgraded((socket, frames) => {
    // One at a time: the next comes when the one before is answered.
    const frame = frames.subarray(taken.get(socket) ?? 0);
    if (frame.length === 0) return;
    taken.set(socket, frames.length);
    const isText = (frame[0] & 15) === 1;
    if (isText) take(socket, unmasked(frame), (said) => socket.write(textFrame(JSON.stringify(said.error ? said : { type: 'published', ...said }))));
  });
  const address = await server(t, (socket, received) => {
    const request = received.toString();
    opened.add(socket);
    const [head, body] = request.split('\r\n\r\n');
    if (request.startsWith('GET /position ')) {
      asked.add(socket);
      position(socket, received);
    } else if (request.startsWith('GET /publish ')) {
      staying(socket, received);
    } else if (request.startsWith('GET ')) {
      ephemeral(socket, received);
    } else if (body !== undefined && Buffer.byteLength(body) === Number(/content-length: (\d+)/i.exec(head)[1])) {
      takeOnce(socket, body, ({ error }, text) => responds(error ? 400 : 200, text)(socket, received));
    }
  });
  return { address, got, asked, opened, requests };
}
const SILENCE = Symbol('silence');
const BREAK = Symbol('break');
const LOST = { timeout: SILENCE, broken: BREAK };
const WAYS = ['websocket', 'http', 'kept-websocket'];
const refusal = (code) => ({ type: 'error', error: { code, detail: 'why' } });

function unmasked(frame) {
  const isShort = (frame[1] & 127) < 126;
  const length = isShort ? frame[1] & 127 : frame.readUInt16BE(2);
  const mask = frame.subarray(isShort ? 2 : 4).subarray(0, 4);
  const masked = frame.subarray(isShort ? 6 : 8).subarray(0, length);
  return Buffer.from(masked.map((byte, index) => byte ^ mask[index % 4])).toString();
}

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

test('a token that is no line of a header field is not sent', async (t) => {
  for (const way of WAYS) {
    for (const token of ['', 'a b', 'a\r\nOther: field', 'é']) {
      assert.match((await fails('http://127.0.0.1:1', 'refused', { token, way })).detail, /visible ASCII/);
    }
  }
  for (const end of ['\n', '\r\n']) {
    let request;
    const address = await server(t, (socket, received) => {
      request = received.toString();
      if (request.endsWith('}}')) responds(200, '{"delivered":3}')(socket, received);
    });
    assert.equal((await publish(address, notification, { way: 'http', token: `secret${end}` })).delivered, 3);
    assert.match(request, /\r\nAuthorization: Bearer secret\r\n[A-Z]/);
  }
});

test('interim answers, and a server that never stops talking', async (t) => {
  const told = await server(t, (socket) => {
    const body = '{"delivered":1,"id":"e-1"}';
    socket.end(`HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
  });
  assert.equal((await publish(told, notification, { way: 'http' })).delivered, 1);
  const talking = await server(t, (socket) => {
    const timer = setInterval(() => socket.write('HTTP/1.1 100 Continue\r\n\r\n'), 1);
    socket.on('close', () => clearInterval(timer)).on('error', () => {});
  });
  const pings = older((socket, frames) => {
    if (frames.length === 0) return;
    const timer = setInterval(() => socket.write(Buffer.from([0x89, 0])), 1);
    socket.on('close', () => clearInterval(timer));
  });
  for (const [way, address] of [['http', talking], ['websocket', await server(t, pings)], ['kept-websocket', await server(t, pings)]]) {
    const { millis } = await fails(address, 'timeout', { way, totalSeconds: 0.5 });
    assert.ok(millis < 500 + SLACK_MS, `${way}: ${millis} ms`);
  }
});

test('what may have been delivered is called lost, and nothing else', async (t) => {
  const lost = async (address, options) => {
    const { error, isLost } = await publish(address, notification, { totalSeconds: 0.3, ...options });
    return [error, isLost];
  };
  const chunked = await server(t, (socket) => socket.end('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nnever\r\n0\r\n\r\n'));
  assert.deepEqual(await lost(chunked, { way: 'http' }), ['protocol', true]);
  assert.deepEqual(await lost(await server(t, () => {}), { way: 'http' }), ['timeout', true]);
  const noWebSocket = await server(t, (socket) => socket.end('HTTP/1.1 101 X\r\n\r\n'));
  assert.deepEqual(await lost(noWebSocket, { way: 'websocket' }), ['protocol', false]);
  assert.deepEqual(await lost(await server(t, () => {}), { way: 'websocket' }), ['timeout', false]);
  assert.deepEqual(await lost(await server(t, responds(403)), { way: 'http' }), ['refused', false]);
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
  assert.match(request, /^POST \/publish HTTP\/1\.0\r\n/);
  assert.match(request, /\r\nAuthorization: Bearer secret\r\n/);
  const { key, ...message } = JSON.parse(request.split('\r\n\r\n')[1]);
  assert.match(key, /^[0-9a-f]{32}$/);
  assert.deepEqual(message, { sender: 'server', type: 'notification', notification });
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
  for (const address of [`tcp://127.0.0.1:${port}`, `http://127.0.0.1:${port}/publish`, 'unix:///nowhere/publish.sock', 'no address', 'http://host/elsewhere']) {
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
    'behind the 101': older(() => {}),
    'in the middle of a Close': older((socket, frames) => frames.length > 0 && socket.write(close(1000, '{"delivered":4}').subarray(0, 5))),
    'in the middle of the head': (socket) => socket.write('HTTP/1.1 101 Swi'),
  };
  for (const [name, answer] of Object.entries(silences)) {
    const address = await server(t, answer);
    const { results, millis } = await fails(address, 'timeout', { totalSeconds: 0.5, count: 3 });
    assert.ok(millis >= 490 && millis < 500 + SLACK_MS, `${name}: ${millis} ms`);
    assert.deepEqual(results.map(({ error }) => error), ['timeout', 'unreachable', 'unreachable'], 'the rest is not tried');
  }
  const { millis } = await fails(await server(t, () => {}), 'timeout', { way: 'http' });
  assert.ok(millis >= 990 && millis < 1000 + SLACK_MS, `a second by default: ${millis} ms`);
});

test('a server that takes nothing: the time-out', async (t) => {
  const address = await server(t, older((socket) => socket.pause()));
  const result = await publish(address, { channel: 'x', text: 'x'.repeat(20_000_000) }, { totalSeconds: 0.5 });
  assert.equal(result.error, 'timeout');
  assert.ok(result.millis < 500 + SLACK_MS + 500, `${result.millis} ms`);
});

test('a server that is slow: byte by byte it is understood, or given up in time', async (t) => {
  const dribble = (ms) => {
    const begun = new WeakSet();
    return older((socket, frames) => {
      if (frames.length === 0 || begun.has(socket)) return;
      begun.add(socket);
      const bytes = [...Buffer.concat([Buffer.from([0x89, 1, 0x2a]), textFrame('{}'), close(1000, '{"delivered":4}')])];
      const timer = setInterval(() => (bytes.length > 0 ? socket.write(Buffer.from([bytes.shift()])) : clearInterval(timer)), ms);
      t.after(() => clearInterval(timer));
    });
  };
  assert.equal((await publish(await server(t, dribble(5)), notification)).delivered, 4);
  assert.equal((await publish(await server(t, dribble(22)), notification)).delivered, 4, 'it has all of the time, for it gets nothing twice');
  const { millis } = await fails(await server(t, dribble(200)), 'timeout');
  assert.ok(millis < 1000 + SLACK_MS, `${millis} ms`);
});

test('a server that answers nonsense: told, and never a warning', async (t) => {
  const after101 = (bytes) => older((socket, frames) => frames.length > 0 && socket.end(bytes));
  const nonsense = {
    'another protocol': (socket) => socket.end('SSH-2.0-OpenSSH_9.2\r\n'),
    'another protocol with an empty line': (socket) => socket.end('220 hello\r\n\r\n'),
    'a head without end': (socket) => socket.write('x'.repeat(200_000)),
    'a 101 for somebody else': (socket) => socket.write('HTTP/1.1 101 X\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n'),
    'a masked frame': after101(Buffer.from([0x88, 0x80, 0, 0, 0, 0])),
    'a reserved bit': after101(Buffer.from([0xc1, 0])),
    'a fragment': after101(Buffer.from([0x01, 0])),
    'a huge frame': after101(Buffer.from([0x81, 127, 0x7f, 255, 255, 255, 255, 255, 255, 255])),
    'a negative length': after101(Buffer.from([0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255])),
    'a Close that says nothing': after101(close(1000, '')),
    'a Close that says something else': after101(close(1000, '{"delivered":"all"}')),
    'an id that is none': after101(close(1000, '{"delivered":4,"id":7}')),
  };
  const cut = {
    'nothing at all': (socket) => socket.end(),
    'a reset': (socket) => socket.resetAndDestroy(),
    'a 101 and the end': older((socket) => socket.end()),
    'half a head': (socket) => socket.end('HTTP/1.1 101 Swi'),
    'half a frame': after101(close(1000, '{"delivered":4}').subarray(0, 9)),
  };
  for (const [word, answers] of Object.entries({ protocol: nonsense, broken: cut })) {
    for (const [name, answer] of Object.entries(answers)) {
      const { error, thrown, millis, detail } = await publish(await server(t, answer), notification);
      assert.deepEqual([name, error, thrown], [name, word, word], detail);
      assert.ok(millis < 1000 + SLACK_MS, `${name}: ${millis} ms`);
    }
  }
  await fails(await server(t, (socket, received) => received.includes('\r\n\r\n') && socket.end('HTTP/1.1 200 X\r\nContent-Length: 15\r\n\r\n{"deliv')), 'broken', { way: 'http' });
  await fails(await server(t, responds(200, 'welcome')), 'refused');
  await fails(await server(t, responds(503)), 'refused');
  await fails(await server(t, after101(close(1013, '{"reason":"overload","retry":900}'))), 'refused');
  await fails(await server(t, after101(Buffer.from([0x88, 0]))), 'refused');
  await fails(await server(t, after101(close(1009, ''))), 'invalid');
  await fails(await server(t, responds(413)), 'invalid', { way: 'http' });
});

test('each notification has a key of its own, or the one that is given', async (t) => {
  for (const way of WAYS) {
    const { address, got } = await publishing(t, (number) => ({ delivered: 2, id: `e-${number}` }));
    const { results } = await publish(address, notification, { way, count: 2 });
    assert.deepEqual(results.map(({ id, repeated }) => [id, repeated]), [['e-0', false], ['e-1', false]]);
    assert.notEqual(got[0].key, got[1].key);
    await publish(address, notification, { way, key: 'message-17' });
    assert.equal(got[2].key, 'message-17');
    assert.deepEqual(got[2], { sender: 'server', key: 'message-17', type: 'notification', notification });
    for (const options of [{ key: '' }, { key: 'é'.repeat(65) }, { key: 'x', keep: false }]) await fails(address, 'invalid', { way, ...options });
    assert.equal((await publish(address, notification, { way, key: 'é'.repeat(64) })).error, null);
    assert.equal(got.length, 4);
  }
});

test('an answer that is lost: published again, once, with the same key', async (t) => {
  for (const way of WAYS) {
    for (const [error, lost] of Object.entries(LOST)) {
      const first = await publishing(t, (number) => (number === 0 ? lost : { delivered: 3, id: 'e-0', repeated: true }));
      const result = await publish(first.address, notification, { way, totalSeconds: 0.6 });
      assert.deepEqual([result.delivered, result.id, result.repeated, result.error], [3, 'e-0', true, null]);
      assert.equal(first.got.length, 2);
      assert.deepEqual(first.got[0], first.got[1]);

      const both = await publishing(t, () => lost);
      const { millis } = await fails(both.address, error, { way, totalSeconds: 0.6 });
      assert.equal(both.got.length, 2, 'and not a third time');
      assert.ok(millis < 600 + SLACK_MS, `${millis} ms`);

      // What was told first holds: it may have arrived.
      const then = await publishing(t, (number) => (number === 0 ? lost : refusal('rate-limited')));
      await fails(then.address, error, { way, totalSeconds: 0.6 });
      assert.equal(then.got.length, 2);
    }
  }
});

test('an answer that is late, though the server has ids: it is taken when it comes', async (t) => {
  for (const way of WAYS) {
    const answer = () => pause(400, { delivered: 2, id: 'e-0' });
    const { address, got, asked } = await publishing(t, answer, () => {});
    const result = await publish(address, notification, { way, totalSeconds: 0.6 });
    assert.deepEqual([result.delivered, got.length, asked.size], [2, 1, 1]);
  }
});

test('an answer that is lost, of several: each is published once more at most, in order, in the time for all', async (t) => {
  for (const way of WAYS) {
    const together = way === 'http';
    const keys = ['key-1', 'key-2', 'key-3'];
    const isLost = (number) => (together ? number < 3 : number % 2 === 0);
    const id = (number) => (together ? 2 * number - 5 : number);
    const { address, got } = await publishing(t, (number) => (isLost(number) ? BREAK : { delivered: 1, id: `e-${id(number)}`, repeated: true }));
    const messages = keys.map((key, n) => ({ key, type: 'count', notification: { channel: 'x', n } }));
    const { results } = await publish(address, null, { way, messages });
    assert.deepEqual(results.map(({ id }) => id), ['e-1', 'e-3', 'e-5']);
    assert.deepEqual(got.map(({ key }) => key), together ? [...keys, ...keys] : ['key-1', 'key-1', 'key-2', 'key-2', 'key-3', 'key-3']);
    const silent = await publishing(t, () => SILENCE);
    const late = await publish(silent.address, null, { way, messages, totalSeconds: 0.4 });
    const rest = together ? 'timeout' : 'unreachable';
    assert.deepEqual(late.results.map(({ error }) => error), ['timeout', rest, rest]);
    assert.ok(late.millis < 400 + SLACK_MS, `${late.millis} ms`);
    assert.deepEqual(silent.got.map(({ key }) => key), together ? [...keys, ...keys] : ['key-1', 'key-1'], 'the rest is not tried');
  }
});

test('a server whose history is another one by now gets nothing twice', async (t) => {
  for (const way of WAYS) {
    for (const [history, times] of [['a', 3], ['b', 2]]) {
      const answer = (number) => (number === 0 ? { delivered: 1, id: 'a-0' } : BREAK);
      const { address, got } = await publishing(t, answer, responds(200, `{"id":"${history}-7"}`));
      const result = await publish(address, notification, { way, calls: 2, count: 1 });
      assert.deepEqual([result.error, result.isLost, got.length], ['broken', true, times], `${way} ${history}`);
    }
  }
});

test('a server that may not know keys gets nothing twice', async (t) => {
  const unknown = { 'no position': responds(404), 'nonsense': responds(200, '{}'), silence: () => {}, 'a break': (socket) => socket.destroy() };
  for (const way of WAYS) {
    for (const [name, position] of Object.entries(unknown)) {
      const { address, got, asked } = await publishing(t, () => BREAK, position);
      const { millis } = await fails(address, 'broken', { way, totalSeconds: 0.4 });
      assert.deepEqual([name, got.length, asked.size], [name, 1, 1]);
      assert.ok(millis < 400 + SLACK_MS, `${name}: ${millis} ms`);
    }
    const refusing = await publishing(t, () => refusal('forbidden'));
    await fails(refusing.address, 'refused', { way });
    assert.equal(refusing.got.length, 1, 'an answer is no reason either');
  }
  // What can't have arrived can't arrive twice.
  let count = 0;
  const upgrade = older((socket, frames) => frames.length > 0 && socket.end(close(1000, '{"delivered":4}')));
  const address = await server(t, (socket, received) => {
    if (count === 0) socket.destroy();
    else upgrade(socket, received);
    count += 1;
  });
  assert.equal((await publish(address, notification)).delivered, 4);
});

test('a server that refuses keys gets notifications without, and none twice', async (t) => {
  for (const way of WAYS) {
    const messages = [1, 2].map((n) => ({ notification: { channel: 'x', n } }));
    const keyless = (number) => (got[number].key === undefined ? { delivered: 1, id: `e-${number}` } : refusal('invalid-notification'));
    const { address, got } = await publishing(t, keyless);
    const { results } = await publish(address, null, { way, messages });
    assert.deepEqual(results.map(({ id, error }) => [id, error]), way === 'http' ? [['e-2', null], ['e-3', null]] : [['e-1', null], ['e-2', null]]);
    const expected = way === 'http' ? [[1, false], [2, false], [1, true], [2, true]] : [[1, false], [1, true], [2, true]];
    assert.deepEqual(got.map(({ notification: { n }, key }) => [n, key === undefined]), expected);

    const losing = await publishing(t, (number) => (losing.got[number].key === undefined ? BREAK : refusal('invalid-notification')));
    await fails(losing.address, 'broken', { way });
    assert.equal(losing.got.length, 2);
    // It has no history now, and perhaps had one when it got the first: a third, without a key, might be one too many.
    const turning = await publishing(t, (number) => (number === 0 ? BREAK : refusal('invalid-notification')));
    await fails(turning.address, 'broken', { way });
    assert.equal(turning.got.length, 2);
    const bad = await publishing(t, () => refusal('invalid-notification'));
    await fails(bad.address, 'invalid', { way });
  }
});

test('what concerns this moment has no key and is published once', async (t) => {
  for (const way of WAYS) {
    for (const [error, lost] of Object.entries(LOST)) {
      const { address, got, asked } = await publishing(t, () => lost);
      const { millis } = await fails(address, error, { way, keep: false, type: 'typing', totalSeconds: 0.3 });
      assert.deepEqual(got, [{ sender: 'server', type: 'typing', keep: false, notification }]);
      assert.equal(asked.size, 0);
      if (error === 'timeout') assert.ok(millis >= 290, 'it has all of the time');
    }
  }
});

test('over HTTP: up to 1000 in a request, and a megabyte', async (t) => {
  const { address, requests } = await publishing(t, (number) => ({ delivered: 1, id: `e-${number}` }));
  const several = (count, more = {}) => Array.from({ length: count }, (_, n) => ({ notification: { channel: 'x', n }, ...more }));
  const { results } = await publish(address, null, { way: 'http', messages: several(2500) });
  assert.deepEqual(requests, [1000, 1000, 500]);
  assert.deepEqual(results.map(({ id }) => id), Array.from({ length: 2500 }, (_, n) => `e-${n}`));
  const text = 'x'.repeat(400_000);
  await publish(address, null, { way: 'http', messages: several(5, { notification: { channel: 'x', text } }) });
  assert.deepEqual(requests.slice(3), [2, 2, 1]);
  // What is not kept has no key, so that it is not repeated together with what has one.
  await publish(address, null, { way: 'http', messages: [...several(2), ...several(3, { keep: false }), ...several(1)] });
  assert.deepEqual(requests.slice(6), [2, 3, 1]);
  const short = await server(t, (socket, received) => received.toString().endsWith(']') && responds(200, '[{"delivered":1}]')(socket, received));
  const { results: wrong } = await publish(short, null, { way: 'http', messages: several(2) });
  assert.deepEqual(wrong.map(({ error }) => error), ['protocol', 'protocol'], 'a receipt is missing');
});

test('the real server: what is invalid, or too big, holds up nothing', async (t) => {
  const own = await Application.start([], { CRIEUR_MAX_PUBLISH_BYTES: '20000' });
  t.after(() => own.stop());
  const bob = await own.user('bob');
  const channel = reader(bob.channels[PRODUCTION]);
  const client = await Client.connect(t, own.addresses.clients);
  await client.subscribe([channel], bob.token);
  const bad = { 7: { package: 'without a page' }, 8: null, 40: { ...channel, text: 'x'.repeat(30_000) }, 99: { page: 7 } };
  const messages = Array.from({ length: 100 }, (_, n) => ({ notification: n in bad ? bad[n] : { ...channel, n, text: 'x'.repeat(500) } }));
  const good = Array.from(messages.keys()).filter((n) => !(n in bad));
  for (const way of WAYS) {
    client.messages.length = 0;
    const { results } = await own.publish(null, { way, messages, totalSeconds: 10 });
    const failed = results.flatMap(({ error }, n) => (error === null ? [] : [[n, error]]));
    assert.deepEqual(failed, Object.keys(bad).map((n) => [Number(n), 'invalid']), way);
    assert.deepEqual(new Set(good.map((n) => results[n].delivered)), new Set([1]));
    await until(() => client.notifications.at(-1)?.notification.n === 98, 'all have come');
    assert.deepEqual(client.notifications.map(({ notification: { n } }) => n), good, 'each once, in order');
  }
});

test('a connection that stays takes one after the other, answers Pings, and is replaced when it has ended', async (t) => {
  const ping = Buffer.from([0x89, 1, 0x2a]);
  const receipt = (n) => textFrame(JSON.stringify({ type: 'published', delivered: 1, id: `e-${n}` }));
  const play = async (behind) => {
    const got = [];
    const pongs = [];
    const opened = new Set();
    const seen = new WeakMap();
    const address = await server(t, upgraded((socket, frames) => {
      opened.add(socket);
      let rest = frames.subarray(seen.get(socket) ?? 0);
      while (rest.length > 0) {
        const size = 6 + (rest[1] & 127) + ((rest[1] & 127) === 126 ? 2 + rest.readUInt16BE(2) - 126 : 0);
        const frame = rest.subarray(0, size);
        if ((frame[0] & 15) === 10) pongs.push(unmasked(frame));
        else if ((frame[0] & 15) === 1) behind(socket, receipt(got.push(unmasked(frame)) - 1), got.length);
        rest = rest.subarray(size);
      }
      seen.set(socket, frames.length);
    }));
    const result = await publish(address, notification, { way: 'kept-websocket', calls: 3, count: 2, keep: false });
    return { id: result.results.at(-1).id, got, pongs, opened };
  };
  const { id, got, pongs, opened } = await play((socket, answer) => socket.write(answer));
  assert.deepEqual([id, got.length, pongs.length, opened.size], ['e-5', 6, 0, 1]);
  const pinged = await play((socket, answer) => socket.write(Buffer.concat([answer, ping])));
  assert.deepEqual([pinged.id, pinged.got.length, pinged.opened.size], ['e-5', 6, 1]);
  assert.deepEqual(pinged.pongs, ['*', '*', '*', '*', '*']);
  const closed = await play((socket, answer, n) => (n === 3 ? socket.end(Buffer.concat([answer, close(1001, '')])) : socket.write(answer)));
  assert.deepEqual([closed.id, closed.got.length, closed.opened.size], ['e-5', 6, 2]);
  // What comes too late is not taken for the answer to the next.
  let first;
  const late = await play((socket, answer, n) => {
    if (n === 1) first = () => socket.write(answer);
    else if (n === 2) first();
    if (n > 1) socket.write(answer);
  });
  assert.deepEqual([late.id, late.opened.size], ['e-4', 2]);
});

test('over TLS, if the certificate is one to trust', async (t) => {
  const own = await Application.start();
  t.after(() => own.stop());
  const folder = await mkdtemp(path.join(tmpdir(), 'crieur-tls-'));
  t.after(() => rm(folder, { recursive: true }));
  const [key, cert] = ['key.pem', 'cert.pem'].map((name) => path.join(folder, name));
  const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ed25519', '-nodes', '-days', '2', '-keyout', key, '-out', cert, ...subject], { stdio: 'pipe' });
  const lane = new URL(own.addresses.publish).pathname;
  const listener = tls.createServer({ key: await readFile(key), cert: await readFile(cert) }, (socket) => {
    const plain = net.connect(lane);
    for (const each of [socket, plain]) each.on('error', () => {});
    socket.pipe(plain).pipe(socket);
  });
  listener.on('tlsClientError', () => {});
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  t.after(() => listener.close());
  const { port } = listener.address();
  const token = own.read('publish.token').trim();
  for (const way of WAYS) {
    // A handshake each takes its time.
    const count = way === 'websocket' ? 20 : 900;
    const messages = Array.from({ length: count }, (_, n) => ({ notification: { channel: 'x', n, text: 'x'.repeat(500) } }));
    for (const address of [`https://127.0.0.1:${port}`, `tls://localhost:${port}`]) {
      const { results } = await publish(address, null, { way, token, messages, totalSeconds: 10, environment: { SSL_CERT_FILE: cert } });
      assert.deepEqual([...new Set(results.map(({ error, detail }) => error ?? detail))], [null], `${way} ${address}`);
      assert.equal(new Set(results.map(({ id }) => id)).size, count);
    }
  }
  assert.match((await fails(`https://127.0.0.1:${port}`, 'unreachable', { token })).detail, /certificate verify failed/);
});

test('the position, or why there is none', async (t) => {
  let request;
  const keeping = (answer) => (socket, received) => {
    request = received.toString();
    answer(socket, received);
  };
  const ask = (address, options) => publish(address, null, { position: true, ...options });
  const told = await ask(await server(t, keeping(responds(200, '{"id":"e-7"}'))), { token: 'secret' });
  assert.deepEqual([told.id, told.error, told.delivered], ['e-7', null, null]);
  assert.match(request, /^GET \/position HTTP\/1\.0\r\n/);
  assert.match(request, /\r\nAuthorization: Bearer secret\r\n/);
  const failures = [
    ['refused', responds(404)],
    ['refused', responds(426)],
    ['refused', responds(401, JSON.stringify(refusal('forbidden')))],
    ['refused', responds(503)],
    ['protocol', responds(200, 'welcome')],
    ['protocol', responds(200, '{"id":7}')],
    ['protocol', responds(200, '{"id":""}')],
    ['protocol', responds(200, '[]')],
    ['protocol', (socket) => socket.end('SSH-2.0-OpenSSH_9.2\r\n')],
    ['broken', (socket) => socket.end()],
    ['broken', (socket) => socket.resetAndDestroy()],
    ['broken', (socket) => socket.end('HTTP/1.1 200 X\r\nContent-Length: 12\r\n\r\n{"id"')],
    ['timeout', () => {}],
    ['timeout', (socket) => socket.write('HTTP/1.1 200 X\r\nContent-Length: 12\r\n\r\n{"id"')],
  ];
  for (const [error, answer] of failures) {
    const result = await ask(await server(t, answer), { totalSeconds: 0.3 });
    assert.deepEqual([result.id, result.error, result.thrown], [null, error, error], result.detail);
    assert.ok(result.millis < 300 + SLACK_MS, `${result.millis} ms`);
  }
  assert.equal((await ask('unix:///nowhere/publish.sock')).error, 'unreachable');
});

/** In front of the publishers' lane: the answer to what is published first gets lost there, which `end`s as it may. */
async function losing(t, path, end) {
  let isLost = false;
  const listener = net.createServer((socket) => {
    const lane = net.connect(path);
    let sent = '';
    for (const each of [socket, lane]) each.on('error', () => {});
    socket.on('data', (bytes) => {
      sent += bytes.toString('latin1');
      lane.write(bytes);
    });
    lane.on('data', (bytes) => {
      const isHandshake = bytes.toString('latin1').startsWith('HTTP/1.1 101');
      if (isLost || isHandshake || sent.startsWith('GET /position')) {
        socket.write(bytes);
      } else {
        isLost = true;
        lane.pause();
        end(socket);
      }
    });
    socket.on('close', () => lane.destroy());
    lane.on('end', () => lane.isPaused() || socket.end());
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  t.after(() => listener.close());
  return `tcp://127.0.0.1:${listener.address().port}`;
}

test('the real server: what is published again because the answer was lost is delivered once', async (t) => {
  // Not the one of the other tests: that is down by now.
  const own = await Application.start();
  t.after(() => own.stop());
  const bob = await own.user('bob');
  const channel = reader(bob.channels[PRODUCTION]);
  const client = await Client.connect(t, own.addresses.clients);
  await client.subscribe([channel], bob.token);
  const token = own.read('publish.token').trim();
  const path = new URL(own.addresses.publish).pathname;
  const ends = { 'silence': () => {}, 'a break': (socket) => socket.resetAndDestroy() };
  for (const way of WAYS) {
    for (const [name, end] of Object.entries(ends)) {
      client.messages.length = 0;
      const address = await losing(t, path, end);
      const result = await publish(address, { ...channel, text: 'once' }, { token, way });
      assert.deepEqual([name, result.error, result.delivered, result.repeated], [name, null, 1, true], result.detail);
      assert.equal((await publish(address, null, { token, position: true })).id, result.id);
      const next = await own.publish({ ...channel, text: 'behind it' });
      assert.deepEqual([next.delivered, next.repeated], [1, false]);
      await until(() => client.notifications.at(-1)?.notification.text === 'behind it', 'all has come');
      assert.deepEqual(client.notifications.map(({ notification: { text } }) => text), ['once', 'behind it']);
    }
  }
  const moment = await own.publish(channel, { keep: false });
  assert.deepEqual([moment.delivered, moment.id], [1, null]);
  assert.equal((await publish(own.addresses.publish, null, { position: true, token: 'wrong' })).error, 'refused');
});

test('the real server without a history: everything works, without keys', async (t) => {
  const own = await Application.start([], { CRIEUR_HISTORY_SECONDS: '0' });
  t.after(() => own.stop());
  const bob = await own.user('bob');
  const client = await Client.connect(t, own.addresses.clients);
  await client.subscribe([reader(bob.channels[PRODUCTION])], bob.token);
  for (const way of WAYS) {
    const { results } = await own.publish(reader(bob.channels[PRODUCTION]), { way, count: 2 });
    assert.deepEqual(results.map(({ delivered, error }) => [delivered, error]), [[1, null], [1, null]]);
  }
  assert.equal((await (await own.user('alice')).say(PRODUCTION, 'without a history')).notified, true);
  await until(() => client.notifications.length === 2 * WAYS.length + 1, 'each has come once');
});
