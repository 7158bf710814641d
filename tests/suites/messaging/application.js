// The application of docs/messaging, started by its own script, and what talks to it besides a browser.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import WebSocket from 'ws';

export const sources = process.env.APPLICATION;
if (!sources) throw new Error('APPLICATION says where docs/messaging is: see tests/suites/messaging/run');

const settings = Object.keys(process.env).filter((name) => name.startsWith('CRIEUR_'));
const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !settings.includes(name)));

/** What runs: nothing outlives the tests, however they end. */
const running = new Set();
process.on('exit', () => {
  for (const child of running) child.kill('SIGTERM');
});

export const PACKAGE = 'amaiia_messages';
export const PRODUCTION = 'Production';

/** A subscription to the messages of channels, as existing apps write it. */
export const reader = (...ids) => ({ package: PACKAGE, page: 'message_reader', filters: { values: { channel: ids.map(String) } } });

export class Application {
  /** Starts it; `options` are of the script, `variables` are settings of crieur. */
  static async start(options = [], variables = {}) {
    const application = new Application();
    application.data = mkdtempSync(path.join(tmpdir(), 'crieur-messaging-'));
    application.process = spawn(path.join(sources, 'start'), ['--data', application.data, ...options], {
      env: { ...environment, CRIEUR_LOG: 'debug', ...variables },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    running.add(application.process);
    application.process.stdout.resume();
    const file = path.join(application.data, 'addresses.json');
    await until(() => existsSync(file) || application.process.exitCode !== null, 'the application is started');
    application.addresses = JSON.parse(readFileSync(file));
    return application;
  }

  async stop() {
    this.process.kill('SIGTERM');
    if (this.process.exitCode === null) await once(this.process, 'exit');
    running.delete(this.process);
    rmSync(this.data, { recursive: true, force: true });
  }

  get url() {
    return new URL(this.addresses.page);
  }
  read(name) {
    return readFileSync(path.join(this.data, name), 'utf8');
  }
  log(name = 'crieur') {
    return this.read(`logs/${name}.log`);
  }
  pid(name) {
    return Number(this.read(`${name}.process`));
  }

  /** POST /ic.php: status and answer. */
  async post(body, headers = {}) {
    const response = await fetch(new URL('ic.php', this.url), {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...headers },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    });
    return { status: response.status, answer: await response.json().catch(() => null) };
  }

  /** Someone who has logged in. */
  async user(login) {
    const user = new User(this, login);
    const { session, token } = await user.call('user', 'login', { login, password: 'demo' });
    user.session = session;
    user.token = token;
    const { channels } = await user.call('channel', 'list');
    user.channels = Object.fromEntries(channels.map(({ id, name }) => [name, id]));
    return user;
  }

  /** Kills one of the crieurs, or their Redis, does what there is to do while it is down, and waits until it is back. */
  async kill(name = 'crieur', meanwhile = async () => {}) {
    const pid = this.pid(name);
    // Nobody starts it before that is done.
    this.process.kill('SIGSTOP');
    process.kill(pid, 'SIGKILL');
    try {
      await meanwhile();
    } finally {
      this.process.kill('SIGCONT');
    }
    const lane = name === 'redis' ? 'publish.sock' : `${name.replace('crieur', 'publish')}.sock`;
    const token = this.read('publish.token').trim();
    const position = async () => (await publish(`unix://${this.data}/${lane}`, null, { position: true, token })).id;
    await until(async () => this.pid(name) !== pid && (await position()) !== null, `${name} is back`);
  }

  /** Publishes with the PHP package on the publishers' lane, from the command line. */
  async publish(notification, options = {}) {
    return publish(this.addresses.publish, notification, { token: this.read('publish.token').trim(), ...options });
  }
}

class User {
  constructor(application, login) {
    this.application = application;
    this.login = login;
    this.session = null;
  }

  async send(object, action, values = {}) {
    const headers = this.session === null ? {} : { Authorization: `Bearer ${this.session}` };
    return this.application.post({ cmd: [{ amaiia_msg_srv: { [object]: { [action]: values } } }] }, headers);
  }

  async call(object, action, values) {
    const { status, answer } = await this.send(object, action, values);
    if (status !== 200) throw new Error(`${object}/${action}: ${status} ${JSON.stringify(answer)}`);
    return answer.cmd[0].amaiia_msg_srv[object][action];
  }

  async say(channel, details, title = '') {
    return this.call('message', 'add', { channelid: Number(this.channels[channel]), title, details, sentby: this.login });
  }
}

/** Runs publish.php: the result, and the milliseconds that the call took. */
export async function publish(address, notification, { environment = {}, ...options } = {}) {
  const child = spawn('php', [path.join(import.meta.dirname, 'publish.php'), sources, address], {
    env: { ...process.env, ...environment },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  running.add(child);
  child.stdin.end(JSON.stringify({ notification, ...options }));
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (more) => (text += more));
  await once(child, 'close');
  running.delete(child);
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`publish.php said: ${text}`);
  }
}

/** A WebSocket that keeps what it gets. */
export class Client {
  static async connect(t, url, options = {}) {
    const socket = new WebSocket(url, options);
    const client = new Client();
    client.socket = socket;
    client.messages = [];
    client.closed = once(socket, 'close').then(([code, reason]) => ({ code, reason: String(reason) }));
    socket.on('message', (data) => client.messages.push(JSON.parse(data)));
    socket.on('error', () => {});
    t.after(() => socket.terminate());
    await once(socket, 'open');
    return client;
  }

  send(value) {
    this.socket.send(JSON.stringify(value));
  }

  /** Subscribes, and returns the answer, whatever it is. */
  async subscribe(subscriptions, token, since) {
    const count = this.messages.length;
    this.send({ sender: 'client', token, subscriptions, since });
    await until(() => this.messages.length > count, 'the subscription is answered');
    return this.messages[count];
  }

  get notifications() {
    return this.messages.filter(({ notification }) => notification);
  }
}

/** Waits until `condition` holds. */
export async function until(condition, what, ms = 30_000) {
  const end = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`it did not happen in ${ms} ms: ${what}`);
    await pause(5);
  }
}
