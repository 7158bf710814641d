// A crieur of the test's own, and what talks to it.

import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import WebSocket from 'ws';
import { Crieur } from '@crieur/client';

const binary = process.env.CRIEUR;
if (!binary) throw new Error('CRIEUR says which program to test: see tests/suites/web/run');

const settings = Object.keys(process.env).filter((name) => name.startsWith('CRIEUR_'));
const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !settings.includes(name)));

/** Servers that run: nothing outlives the tests, however they end. */
const running = new Set();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Becomes a program whose standard error is a terminal; a process of its own copies what that shows. */
const TERMINAL = `
import os, pty, sys
user, terminal = pty.openpty()
if os.fork() == 0:
    os.close(terminal)
    try:
        while text := os.read(user, 4096):
            os.write(2, text)
    finally:
        os._exit(0)
os.close(user)
os.dup2(terminal, 2)
os.execv(sys.argv[1], sys.argv[1:])
`;

/** A server on a free port, which it keeps when it is started again. */
export class Server {
  static async start(t, ...flags) {
    const server = new Server(flags);
    await server.start();
    t.after(() => server.kill());
    return server;
  }

  constructor(flags) {
    this.flags = flags;
    this.port = 0;
  }

  get url() {
    return `ws://127.0.0.1:${this.port}/`;
  }
  get page() {
    return `http://127.0.0.1:${this.port}/`;
  }

  /** A server that prints a link with its key. */
  static async atTerminal(t, ...flags) {
    const server = new Server(flags);
    server.isAtTerminal = true;
    await server.start();
    t.after(() => server.kill());
    return server;
  }

  async start() {
    const listen = `127.0.0.1:${this.port}`;
    const command = [binary, '--listen', listen, ...this.flags];
    if (this.isAtTerminal) command.unshift('python3', '-c', TERMINAL);
    this.process = spawn(command[0], command.slice(1), { env: environment, stdio: ['ignore', 'ignore', 'pipe'] });
    running.add(this.process);
    this.process.stderr.setEncoding('utf8');
    let log = '';
    const wanted = this.isAtTerminal ? /http:..127\.0\.0\.1:(\d+)\/(#publish=[\w-]+)\r?\n/ : /listening on 127\.0\.0\.1:(\d+)/;
    await new Promise((resolve, reject) => {
      this.process.once('exit', () => reject(new Error(`the server ended: ${log}`)));
      this.process.stderr.on('data', (text) => {
        log += text;
        const found = wanted.exec(log);
        if (found) {
          this.port = Number(found[1]);
          this.key = found[2];
          resolve();
        }
      });
    });
    // From here on it is only drained.
    this.process.stderr.removeAllListeners('data');
    this.process.stderr.resume();
  }

  /** Ends it without a word to its clients. */
  async kill() {
    await this.end('SIGKILL');
  }
  /** Asks it to stop, which it tells its clients. */
  async terminate() {
    await this.end('SIGTERM');
  }
  async end(signal) {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    this.process.removeAllListeners('exit');
    this.process.kill(signal);
    await once(this.process, 'exit');
    running.delete(this.process);
  }
}

/** A publisher that keeps its connection. */
export class Publisher {
  static async connect(server) {
    const socket = new WebSocket(`${server.url}publish`);
    await once(socket, 'open');
    return new Publisher(socket);
  }

  constructor(socket) {
    this.socket = socket;
    this.waiting = [];
    socket.on('message', (data) => this.waiting.shift()(JSON.parse(data)));
    socket.on('error', () => {});
    // A caller that waits when the server is gone waits for nothing.
    socket.on('close', () => this.waiting.splice(0).forEach((resolve) => resolve(null)));
  }

  /** The server's answer; `null` if the connection ended before. */
  publish(notification, type, { key, keep } = {}) {
    if (this.socket.readyState !== WebSocket.OPEN) return Promise.resolve(null);
    this.socket.send(JSON.stringify({ sender: 'server', type, key, keep, notification }));
    return new Promise((resolve) => this.waiting.push(resolve));
  }

  close() {
    this.socket.close();
  }
}

/** A way to the server that can go silent, be slow, break in the middle of a message, and be closed for a while. */
export class Link {
  static async to(t, server) {
    const link = new Link();
    link.pairs = new Set();
    link.held = null;
    /** How many bytes of the server a connection that is made from now on passes before it breaks. */
    link.bytesMax = Infinity;
    /** Whether connections are refused. */
    link.isDown = false;
    link.listener = net.createServer((near) => link.join(near, net.connect(server.port, '127.0.0.1')));
    link.listener.listen(0, '127.0.0.1');
    await once(link.listener, 'listening');
    t.after(() => link.close());
    return link;
  }

  get url() {
    return `ws://127.0.0.1:${this.listener.address().port}/`;
  }

  join(near, far) {
    if (this.isDown) {
      near.destroy();
      far.destroy();
      return;
    }
    const pair = { near, far, isSilent: false, left: this.bytesMax };
    this.pairs.add(pair);
    for (const [from, to] of [[near, far], [far, near]]) {
      const pass = (data) => {
        if (pair.isSilent) return;
        if (from === near || data.length < pair.left) {
          pair.left -= from === far ? data.length : 0;
          to.write(data);
        } else {
          // The client still gets these bytes: a reset might take them away.
          near.end(data.subarray(0, pair.left));
          far.destroy();
          this.pairs.delete(pair);
        }
      };
      from.on('data', (data) => (from === near && this.held !== null ? this.held.push(() => pass(data)) : pass(data)));
      from.on('end', () => pair.isSilent || to.end());
      from.on('error', () => pair.isSilent || to.destroy());
    }
  }

  /** From now on nothing passes on the connections that there are. */
  silence() {
    for (const pair of this.pairs) pair.isSilent = true;
  }

  /** From now on what clients send stays on the way, until `release()`. */
  hold() {
    this.held = [];
  }
  release() {
    const { held } = this;
    this.held = null;
    for (const pass of held) pass();
  }

  /** From now on nothing of what the server sends is taken, until `resume()`. */
  stall() {
    for (const { far } of this.pairs) far.pause();
  }
  resume() {
    for (const { far } of this.pairs) far.resume();
  }

  /** Breaks the connections that there are. */
  cut() {
    for (const { near, far } of this.pairs) {
      near.destroy();
      far.destroy();
    }
    this.pairs.clear();
  }

  close() {
    this.listener.close();
    this.cut();
  }
}

/** A client of `url` that is closed with the test. */
export function connect(t, url, options = {}) {
  const client = new Crieur(url, { WebSocket, ...options });
  t.after(() => client.close());
  return client;
}

/** The next event of a client that `isIt`. */
export function next(client, event, isIt = () => true) {
  return new Promise((resolve) => {
    const remove = client.on(event, (value) => {
      if (!isIt(value)) return;
      remove();
      resolve(value);
    });
  });
}
export const nextStatus = (client, wanted) => next(client, 'status', ({ status }) => status === wanted);

/** A folder for the time of a test. */
export function temporaryFolder(t) {
  const folder = mkdtempSync(path.join(tmpdir(), 'crieur-web-'));
  t.after(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));
  return folder;
}

/** A file with `text` that nobody else can read, for the time of a test. */
export function secretFile(t, text) {
  const file = path.join(temporaryFolder(t), 'secret');
  writeFileSync(file, `${text}\n`, { mode: 0o600 });
  return file;
}

/** A client's token that allows `allow` for so many seconds, and says what else is in `others`. */
export function clientToken(key, allow, seconds, others = {}) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const claims = { sub: 'bob', exp: Date.now() / 1000 + seconds, allow, ...others };
  const signed = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode(claims)}`;
  return `${signed}.${createHmac('sha256', key).update(signed).digest('base64url')}`;
}

/** Waits until `condition` holds. */
export async function until(condition, what, ms = 30_000) {
  const end = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`it did not happen in ${ms} ms: ${what}`);
    await pause(2);
  }
}
