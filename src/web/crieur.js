/**
 * The client of crieur: one connection that stays, whatever the network does.
 *
 * Owns the WebSocket, its retries, its liveness, the renewal of the subscriptions and the position in the
 * server's history; knows nothing of what notifications mean. Runs unchanged in browsers, React Native
 * and Node.
 *
 * Invariants: one socket at a time, and one timer, whose meaning the status gives: the patience for a
 * try (`connecting`), the next look at the connection (`online`), the next try (`waiting`). In `closed` there is
 * neither. A handler may call anything at any time: after an event, nothing is
 * taken for granted. The position moves before the handlers hear of what moved it.
 */

/** The longest delay after the first try that failed; it doubles from there. */
const DELAY_FIRST_MS = 500;
const DELAY_MAX_MS = 30_000;
/** The longest time that a server may ask for. Beyond 2^31 a timer would fire at once. */
const RETRY_MAX_MS = 600_000;
const CONNECT_TIMEOUT_MS = 5_000;
const TOKEN_TIMEOUT_MS = 10_000;
/** How long a connection has to live before it counts as a success. */
const STABLE_MS = 5_000;
/** The silence after which to ask, until the server has told its own. */
const HEARTBEAT_MS = 25_000;
const IDLE_MIN_MS = 10_000;
const ANSWER_TIMEOUT_MS = 10_000;
/** How often an online client looks at the clock: sleep shows as a look that comes late. */
const LOOK_MS = 5_000;
const LATE_MS = 3_000;
/** How many of the notifications handed on last are known again, should a replay repeat them. */
const HANDED_ON_MAX = 10_000;

/** The words behind a 1008 that no later try mends. Others, such as `unfinished-message`, are bad luck of one connection. */
const FINAL_WORDS = ['forbidden', 'invalid-notification'];

const PING = '{"type":"ping"}';
const NO_SUBSCRIPTIONS = '[]';
/** Stands for the first set that will be given: no set is written like this. */
const FIRST_SET = 'first';

const ignore = () => {};

/** What went wrong; `code` is a fixed word, for programs. */
export class CrieurError extends Error {
  constructor(code, message) {
    super(message);
    this.name = 'CrieurError';
    this.code = code;
  }
}

/** A client of the server at `url`; it connects by itself, and again until `close()`. */
export class Crieur {
  #url;
  #WebSocket;
  #tokenSource;
  #appState;
  #handlers = {
    notification: new Set(),
    status: new Set(),
    subscribed: new Set(),
    resumed: new Set(),
    gap: new Set(),
    error: new Set(),
  };
  #state = { status: 'connecting', retryAt: null, code: null, reason: null };
  #unlisten = [];

  #socket = null;
  #timer = null;
  /** Tries since the last success, which is a connection that lived and was subscribed. */
  #tries = 0;
  /** When the server wants to be asked again: until then, nothing but this client's timer tries. */
  #notBefore = 0;

  // The life of the connection, in milliseconds of the wall clock: others may stop during sleep.
  #openedAt = null;
  /** When something came that says how far this client is; where it keeps no position, anything does. */
  #receivedAt = 0;
  #lookSetAt = 0;
  #lookDueAt = 0;
  #wasLate = false;
  /** When the ping left that nothing has come after. */
  #pingedAt = null;
  #roundTripFrom = null;
  #roundTrip = null;
  #heartbeat = HEARTBEAT_MS;
  /** How long the last connection lived, if it died without a sign. */
  #silentLife = null;

  // Sets of subscriptions, as the text that is sent.
  #wanted = NO_SUBSCRIPTIONS;
  #accepted = NO_SUBSCRIPTIONS;
  /** Callers whose set has not been sent. */
  #waiters = [];
  /** What was sent on this connection and not answered, in order, as the server answers it. */
  #sent = [];
  /** The server's answer to `#accepted` on this connection. */
  #answer = null;
  /** Whether `subscribed` was said of `#accepted`; and of anything on this connection. */
  #isSaid = false;
  #isFirst = true;

  /** Whether positions are shown at all. */
  #resumes;
  /** The id up to which everything has been handed on; `null` before a server has told one. */
  #position;
  /** The set whose state the app has, or was told to load; `null` while another one may have taken its place. */
  #completeSet = null;
  /** Whether the app has a state, in which something may be missing. */
  #hasState = false;
  /** How this connection began: `resumed` from the position or `fresh`; `null` until that is known. */
  #beginning = null;
  /** Whether the set in force goes on from where the app is with it. */
  #isContinued = false;
  #isReplaying = false;
  /** Ids, the oldest first. */
  #handedOn = new Set();

  #token = null;
  /** The question for a token that is under way. */
  #question = null;
  /** Whether a token was refused since the server last took one. */
  #wasRefused = false;

  constructor(url, options = {}) {
    this.#url = url;
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    if (typeof this.#WebSocket !== 'function') {
      throw new TypeError('this runtime has no WebSocket: pass one as options.WebSocket');
    }
    this.#resumes = options.resume !== false;
    this.#position = readId(options.since);
    if (this.#position === null && options.since) throw new TypeError('since must be a position, which is a text');
    if (this.#position !== null) {
      this.#completeSet = FIRST_SET;
      this.#hasState = true;
    }
    this.#tokenSource = options.token ?? null;
    this.#appState = options.appState ?? null;
    this.#listen();
    // A client that is closed at once, as React's StrictMode does, never opens a socket; and handlers
    // that are added right behind the constructor miss nothing.
    Promise.resolve().then(() => {
      if (this.#state.status !== 'closed') this.#connect();
    });
  }

  /** `connecting`, `online`, `waiting` or `closed`. */
  get status() {
    return this.#state.status;
  }

  /** Whether the set that was given last is in force on the connection, so that nothing of it is missed. */
  get isSubscribed() {
    return this.#answer !== null && this.#sent.length === 0;
  }

  /** The time of the next try, in milliseconds like `Date.now()`, while `waiting`. */
  get retryAt() {
    return this.#state.retryAt;
  }

  /** Where the client is in the server's history: what `since` of a later client begins at. */
  get position() {
    return this.#position;
  }

  /** How long the last ping took, in milliseconds; `null` before the first. */
  get roundTrip() {
    return this.#roundTrip;
  }

  /** Calls `handler` at each `event`; returns a function that ends this. */
  on(event, handler) {
    const handlers = this.#handlers[event];
    if (!handlers) throw new TypeError(`there is no event ${event}`);
    // In an object of its own: a handler that is added twice is called twice.
    const entry = { handler };
    handlers.add(entry);
    return () => {
      handlers.delete(entry);
    };
  }

  /** Replaces the set of subscriptions, now and at each connection to come. */
  subscribe(subscriptions) {
    if (!Array.isArray(subscriptions)) throw new TypeError('subscriptions must be an array');
    const set = JSON.stringify(subscriptions);
    const answer = new Promise((resolve, reject) => this.#ask(set, { resolve, reject }));
    // A caller that ignores the answer causes no unhandled rejection.
    answer.catch(ignore);
    return answer;
  }

  /** Something may have changed: tries now if it waits, and if it is online, sees whether it still is. */
  wake() {
    const now = Date.now();
    if (this.#state.status === 'waiting' && now >= this.#notBefore) this.#connect();
    if (this.#state.status === 'online' && this.#pingedAt === null) this.#ping(now);
  }

  /** Ends it for good. */
  close() {
    this.#end(new CrieurError('closed', 'the client was closed'), (socket) => socket.close(1000));
  }

  // Connecting.

  #connect() {
    // Tries that hardly can succeed, or that nobody waits for, must not make the next good one later.
    if (this.#tries === 0 || !this.#isAway()) this.#tries += 1;
    if (!this.#change('connecting')) return;
    if (this.#tokenSource !== null && this.#token === null) {
      this.#askForToken();
    } else {
      this.#open();
    }
  }

  #askForToken() {
    const question = {};
    this.#question = question;
    const settle = (then) => (value) => {
      if (this.#question === question) then(value);
    };
    const fail = settle((error) => {
      const why = error instanceof Error ? error.message : String(error);
      this.#lose({ reason: 'token' }, new CrieurError('token', `token() failed: ${why}`));
    });
    const take = settle((token) => {
      this.#token = token;
      this.#open();
    });
    this.#arm(TOKEN_TIMEOUT_MS, () => fail(`no answer in ${TOKEN_TIMEOUT_MS / 1000} s`));
    // Within a promise, where one that throws is one that rejects.
    new Promise((resolve) => resolve(this.#tokenSource())).then(take, fail);
  }

  #open() {
    let socket;
    try {
      socket = new this.#WebSocket(this.#url);
    } catch (error) {
      // No later try makes a URL valid.
      if (error.name === 'SyntaxError') {
        this.#end(new CrieurError('bad-url', error.message));
      } else {
        this.#lose({ reason: error.message });
      }
      return;
    }
    this.#socket = socket;
    this.#arm(CONNECT_TIMEOUT_MS, () => this.#lose({ reason: 'timeout' }));
    socket.onopen = () => this.#opened();
    socket.onmessage = (event) => this.#received(event.data);
    socket.onclose = (event) => this.#closed(event);
    // A close follows. Without a handler, Node's ws would throw.
    socket.onerror = ignore;
  }

  #opened() {
    const now = Date.now();
    this.#openedAt = now;
    this.#receivedAt = now;
    this.#wasLate = false;
    this.#lookLater(now);
    this.#sendSet();
    this.#change('online');
  }

  // Losing a connection, and what comes then.

  #closed({ code, reason: text }) {
    const { word, reason, retry } = readReason(text);
    const why = reason ?? `status ${code}`;
    if (code === 1008 && FINAL_WORDS.includes(word)) {
      this.#end(new CrieurError('refused', `the server refused this client: ${why}`), ignore, { code, reason });
    } else if (code === 3000 || code === 3003) {
      if (this.#forgetToken()) {
        this.#lose({ code, reason, retry });
      } else {
        const word = code === 3000 ? 'unauthorized' : 'forbidden';
        this.#end(new CrieurError(word, `the server refused the token: ${why}`), ignore, { code, reason });
      }
    } else {
      this.#lose({ code, reason, retry });
    }
  }

  /** The server does not take the token: whether the next connection may have a fresh one. */
  #forgetToken() {
    if (this.#tokenSource === null || this.#wasRefused) return false;
    this.#wasRefused = true;
    this.#token = null;
    return true;
  }

  /** A try or a connection is over: drops what is left of it and plans the next try. */
  #lose({ code = null, reason = null, retry = null, isSilent = false }, error = null) {
    const now = Date.now();
    if (this.#openedAt !== null) {
      const life = now - this.#openedAt;
      this.#silentLife = isSilent ? life : null;
      if (life >= STABLE_MS && this.#answer !== null) this.#tries = 0;
    }
    this.#drop((socket) => (socket.terminate ? socket.terminate() : socket.close()));
    // What was not answered is asked again; only the newest set is.
    for (const { waiters } of this.#sent.reverse()) this.#waiters.unshift(...waiters);
    this.#sent = [];
    const delay = retry === null ? this.#jitteredDelay() : Math.min(retry, RETRY_MAX_MS);
    this.#notBefore = retry === null ? 0 : now + delay;
    const state = this.#state;
    if (error !== null) this.#emit('error', error);
    if (this.#state !== state) return;
    if (delay === 0) {
      this.#connect();
    } else {
      this.#arm(delay, () => this.#connect());
      this.#change('waiting', { retryAt: now + delay, code, reason });
    }
  }

  /** Exponential backoff with full jitter: anything up to a limit that doubles. */
  #jitteredDelay() {
    if (this.#tries === 0) return 0;
    const limit = this.#isAway() ? DELAY_MAX_MS : Math.min(DELAY_MAX_MS, DELAY_FIRST_MS * 2 ** (this.#tries - 1));
    return Math.random() * limit;
  }

  /** Whether the device says that it is offline, or nobody looks. It may be wrong: tries go on, slowly. */
  #isAway() {
    return (
      globalThis.navigator?.onLine === false ||
      globalThis.document?.visibilityState === 'hidden' ||
      this.#appState?.currentState === 'background'
    );
  }

  /** Leaves the socket to itself; `end` says goodbye to it. */
  #drop(end) {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#question = null;
    this.#openedAt = null;
    this.#pingedAt = null;
    this.#answer = null;
    this.#isFirst = true;
    this.#beginning = null;
    this.#isContinued = false;
    const socket = this.#socket;
    if (socket === null) return;
    this.#socket = null;
    socket.onopen = ignore;
    socket.onmessage = ignore;
    socket.onclose = ignore;
    end(socket);
  }

  #end(error, goodbye = ignore, { code = null, reason = null } = {}) {
    if (this.#state.status === 'closed') return;
    this.#drop(goodbye);
    for (const unlisten of this.#unlisten) unlisten();
    this.#unlisten = [];
    const waiters = [...this.#sent.flatMap((sent) => sent.waiters), ...this.#waiters];
    this.#sent = [];
    this.#waiters = [];
    for (const { reject } of waiters) reject(error);
    this.#change('closed', { code, reason });
    if (error.code !== 'closed') this.#emit('error', error);
  }

  // Liveness.

  #ping(now) {
    this.#pingedAt = now;
    this.#roundTripFrom = now;
    this.#socket.send(PING);
  }

  #look() {
    const now = Date.now();
    const isLate = now - this.#lookDueAt > LATE_MS || now < this.#lookSetAt;
    // Looks of a hidden page are always late: what was asked at the last one has had its time.
    const isAsked = this.#wasLate && this.#pingedAt !== null;
    this.#wasLate = isLate;
    if (isLate && !isAsked) {
      // This device has slept, or its clock was set: what was received before says nothing.
      this.#ping(now);
    } else if (this.#pingedAt === null) {
      if (now - this.#receivedAt >= this.#idleMax()) this.#ping(now);
    } else if (now - this.#pingedAt >= ANSWER_TIMEOUT_MS) {
      this.#lose({ reason: 'silent', isSilent: true });
      return;
    }
    this.#lookLater(now);
  }

  #lookLater(now) {
    const due = this.#pingedAt === null ? this.#receivedAt + this.#idleMax() : this.#pingedAt + ANSWER_TIMEOUT_MS;
    const delay = Math.min(Math.max(due - now, 0), LOOK_MS);
    this.#lookSetAt = now;
    this.#lookDueAt = now + delay;
    this.#arm(delay, () => this.#look());
  }

  /** The silence after which to ask: shorter where something on the way forgets quiet connections. */
  #idleMax() {
    if (this.#silentLife === null) return this.#heartbeat;
    return Math.min(this.#heartbeat, Math.max(IDLE_MIN_MS, this.#silentLife / 2));
  }

  // Messages.

  #received(data) {
    const now = Date.now();
    this.#pingedAt = null;
    const message = readObject(data);
    if (typeof message?.type !== 'string') {
      this.#emit('error', new CrieurError('bad-message', 'the server sent something that is no message'));
      return;
    }
    const id = readId(message.id);
    if ('notification' in message) {
      // Where only notifications that aren't kept come, the position has to be asked for.
      if (id !== null || this.#position === null) this.#receivedAt = now;
      this.#handOn(message, id, data);
      return;
    }
    this.#receivedAt = now;
    switch (message.type) {
      case 'pong':
        if (this.#roundTripFrom !== null) this.#roundTrip = now - this.#roundTripFrom;
        this.#roundTripFrom = null;
        this.#position = id ?? this.#position;
        break;
      case 'subscribed':
        this.#subscribed(message, id, now);
        break;
      case 'caught-up':
        this.#position = id ?? this.#position;
        if (this.#isReplaying) {
          this.#isReplaying = false;
          this.#emit('resumed', { missed: message.missed });
        }
        break;
      case 'gap':
        this.#position = id ?? this.#position;
        this.#isSaid = false;
        this.#losePosition();
        this.#emit('gap', { reason: String(message.reason) });
        this.#saySubscribed();
        break;
      case 'error':
        this.#failed(message.error);
        break;
      // What isn't known belongs to a newer server.
    }
  }

  #handOn(message, id, text) {
    if (id !== null) {
      this.#position = id;
      if (this.#handedOn.has(id)) return;
      this.#handedOn.add(id);
      if (this.#handedOn.size > HANDED_ON_MAX) this.#handedOn.delete(this.#handedOn.values().next().value);
    }
    this.#emit('notification', message, text);
  }

  // Subscriptions.

  #ask(set, waiter) {
    if (this.#state.status === 'closed') {
      waiter.reject(new CrieurError('closed', 'the client is closed'));
      return;
    }
    if (this.#completeSet === FIRST_SET) {
      // An empty one is that of an app that doesn't know yet what it wants.
      if (set !== NO_SUBSCRIPTIONS) this.#completeSet = set;
    } else if (this.#completeSet !== set) {
      // Though it may come back before it is missed by the server: the app may have dropped its state.
      this.#completeSet = null;
    }
    if (this.#state.status !== 'online') {
      this.#wanted = set;
      this.#waiters.push(waiter);
      return;
    }
    const last = this.#sent[this.#sent.length - 1];
    if (last?.set === set) {
      last.waiters.push(waiter);
    } else if (last === undefined && this.#answer !== null && this.#accepted === set) {
      waiter.resolve(this.#answer);
    } else {
      this.#wanted = set;
      this.#waiters.push(waiter);
      this.#sendSet();
    }
  }

  #sendSet() {
    const set = this.#wanted;
    // Until one is answered, each set shows the position. The empty one doesn't: nothing could come for
    // it, and the position would move over what a later set still wants.
    const begins = this.#beginning === null && set !== NO_SUBSCRIPTIONS;
    const since = begins && this.#resumes ? (this.#position ?? '') : null;
    this.#sent.push({ set, waiters: this.#waiters, begins, since });
    this.#waiters = [];
    const token = this.#token === null ? '' : `"token":${JSON.stringify(this.#token)},`;
    const position = since === null ? '' : `,"since":${JSON.stringify(since)}`;
    this.#socket.send(`{"sender":"client",${token}"subscriptions":${set}${position}}`);
  }

  #subscribed(message, id, now) {
    const sent = this.#sent.shift();
    if (sent === undefined) return;
    const { subscriptions, heartbeat } = message;
    this.#accepted = sent.set;
    this.#answer = { subscriptions, heartbeat };
    this.#isSaid = false;
    this.#wasRefused = false;
    if (heartbeat > 0) this.#heartbeat = heartbeat * 1000;
    this.#lookLater(now);
    const isGap = this.#place(sent, message.resumed === true, id);
    for (const { resolve } of sent.waiters) resolve(this.#answer);
    if (isGap) this.#emit('gap', { reason: typeof message.reason === 'string' ? message.reason : 'no-history' });
    this.#saySubscribed();
  }

  /** Where a set that was taken puts this client in the history. Says whether something may be missing since before. */
  #place({ set, begins, since }, isResumed, id) {
    if (!begins) {
      if (this.#beginning !== null) {
        this.#position = id ?? this.#position;
        this.#isContinued = false;
      }
      return false;
    }
    if (isResumed && since) {
      // A replay follows, and moves the position: what it is cut off from comes with the next.
      this.#position = since;
      this.#beginning = 'resumed';
      this.#isReplaying = true;
      this.#isContinued = this.#completeSet === set;
      return false;
    }
    const isGap = this.#hasState && this.#beginning !== 'fresh';
    this.#position = this.#resumes ? id : null;
    this.#beginning = 'fresh';
    this.#losePosition();
    return isGap;
  }

  #losePosition() {
    this.#isReplaying = false;
    this.#isContinued = false;
    this.#completeSet = null;
  }

  #failed(details) {
    const error = new CrieurError(String(details?.code), String(details?.detail));
    const sent = this.#sent.shift();
    let isNothingInForce = false;
    if (sent !== undefined && this.#sent.length === 0) {
      if (error.code === 'forbidden' && this.#forgetToken()) {
        // The set is still wanted; a fresh token may allow it.
        this.#waiters.unshift(...sent.waiters);
        this.#lose({ reason: 'forbidden' });
        return;
      }
      this.#wanted = this.#accepted;
      // The server has kept the set before, unless it was taken on another connection.
      if (this.#answer === null && sent.set !== this.#accepted) this.#sendSet();
      isNothingInForce = this.#answer === null;
    }
    for (const { reject } of sent?.waiters ?? []) reject(error);
    const socket = this.#socket;
    this.#emit('error', error);
    if (isNothingInForce && this.#socket === socket && this.#sent.length === 0) {
      // It was taken before: a server that is full, say, may take it again later, and so may one that wants another token.
      if (error.code === 'forbidden') this.#token = null;
      this.#lose({ reason: error.code });
    }
    this.#saySubscribed();
  }

  /** Says once of the set in force that it is, unless it is about to be replaced. */
  #saySubscribed() {
    if (!this.isSubscribed || this.#isSaid) return;
    const event = { list: JSON.parse(this.#accepted), isFirst: this.#isFirst, isResumed: this.#isContinued };
    this.#isSaid = true;
    this.#isFirst = false;
    if (this.#beginning !== null) {
      this.#hasState = true;
      this.#completeSet = this.#accepted;
    }
    this.#emit('subscribed', event);
  }

  // Events.

  /** Says whether the status is still this one when everybody has heard of it. */
  #change(status, { retryAt = null, code = null, reason = null } = {}) {
    const state = { status, retryAt, code, reason };
    this.#state = state;
    this.#emit('status', state);
    return this.#state === state;
  }

  #emit(event, ...values) {
    for (const { handler } of [...this.#handlers[event]]) {
      try {
        handler(...values);
      } catch (error) {
        // A mistake of a handler is no concern of the connection, nor of the other handlers.
        if (globalThis.reportError) globalThis.reportError(error);
        else console.error(error);
      }
    }
  }

  #arm(delay, then) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(then, delay);
  }

  /** Follows what the device says about itself. */
  #listen() {
    const follow = (target, event, handler) => {
      // React Native has no such targets, Node neither.
      if (!target?.addEventListener) return;
      target.addEventListener(event, handler);
      this.#unlisten.push(() => target.removeEventListener(event, handler));
    };
    follow(globalThis, 'online', () => this.wake());
    follow(globalThis, 'pageshow', (event) => event.persisted && this.wake());
    follow(globalThis.document, 'visibilitychange', () => {
      if (globalThis.document.visibilityState === 'visible') this.wake();
    });
    if (this.#appState !== null) {
      const subscription = this.#appState.addEventListener('change', (state) => state === 'active' && this.wake());
      this.#unlisten.push(() => subscription.remove());
    }
  }
}

/** The object that `text` is in JSON; `null` if it is none. */
function readObject(text) {
  if (typeof text !== 'string') return null;
  try {
    const value = JSON.parse(text);
    return typeof value === 'object' ? value : null;
  } catch {
    return null;
  }
}

/** What the reason of a Close says: a word, the same or the text as it is, and the milliseconds after which to come back. */
function readReason(text) {
  const { reason, retry } = readObject(text) ?? {};
  const word = typeof reason === 'string' ? reason : null;
  return {
    word,
    reason: word ?? (text || null),
    retry: typeof retry === 'number' && retry >= 0 ? retry : null,
  };
}

/** An id of the server; `null` if it is none. */
function readId(value) {
  return typeof value === 'string' && value !== '' ? value : null;
}
