// The page: channels, messages, a composer. The API has everything, and is asked once; from there crieur brings what is
// new, across lost connections too. The API is asked again only where crieur can't say what was missed.

import { Crieur } from '/crieur.js';
import { ApiError, call, session } from './api.js';

const PACKAGE = 'amaiia_messages';
/** Behind the newest message that is known, an older one may still be missing: transactions end out of order. */
const OVERLAP = 20;
const REFRESH_DELAY_MS = 150;
/** How long an opened channel stays empty while its list is not yet in force. */
const SUBSCRIBE_PATIENCE_MS = 1000;
/** How often others are told of somebody who goes on typing, and how long they see it. */
const TYPING_INTERVAL_MS = 3000;
const TYPING_SHOWN_MS = 5000;
/** The longest delay after the first question to the API that failed; it doubles from there. */
const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 30_000;
/** So near to its end, the list of messages stays at its end. */
const NEAR_END_PIXELS = 80;

const find = (selector) => document.querySelector(selector);
const list = find('#messages');
const composer = find('#composer');
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

let me = null;
let crieur = null;
let channels = [];
/**
 * The channel that is open: its `id`, its `messages` by id, and the id up to which they are `complete`, but for
 * the overlap, `null` before the API has answered; whether it `isAsked`; when the others were told last that this user
 * is typing.
 */
let view = null;
/** The id of the channel whose messages are subscribed to. */
let subscribedTo = null;
/** Whether what was missed is still coming. */
let isReplaying = false;
/** What the API is asked for until it has answered, and the `fault` of the last try. */
let pending = null;
let refreshing = null;

// Logging in and out.

find('#login').addEventListener('submit', async (event) => {
  event.preventDefault();
  const form = event.target;
  const fault = form.querySelector('.fault');
  fault.textContent = '';
  try {
    session.save(await call('user', 'login', { login: form.login.value.trim(), password: form.password.value }));
    form.reset();
    await enter();
  } catch (error) {
    fault.textContent = error instanceof ApiError ? error.message : 'The server cannot be reached.';
  }
});

find('#logout').addEventListener('click', async () => {
  // Even if the API can't be told: this tab forgets.
  await call('user', 'logout').catch(() => {});
  leave();
});

async function enter() {
  me = session.load().user;
  show(true);
  find('#me').textContent = me.name;
  paintAvatar(find('#me-avatar'), me);
  let page = null;
  const isLoaded = await persist(async () => {
    page = await call('page', 'load', { channel: nameInAddress() });
  });
  if (!isLoaded) return;
  channels = page.channels;
  // What is in the page was read behind this position: what crieur has behind it completes it.
  connect(page.position);
  if (page.open !== null) openChannel(page.open.id, page.open.messages);
}

function nameInAddress() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return '';
  }
}

function leave() {
  crieur?.close();
  crieur = null;
  pending = null;
  clearTimeout(refreshing);
  refreshing = null;
  subscribedTo = null;
  isReplaying = false;
  keepDraft();
  forgetTyping();
  view = null;
  session.clear();
  show(false);
}

function show(isLoggedIn) {
  find('#welcome').hidden = isLoggedIn;
  find('#application').hidden = !isLoggedIn;
}

/** What goes wrong in the background: a session that has ended needs a new one, the rest comes back. */
function tolerate(error) {
  if (error.code === 'session') leave();
  else console.warn(error);
}

// Notifications.

function connect(since) {
  const { protocol, host } = location;
  crieur = new Crieur(`${protocol.replace('http', 'ws')}//${host}/ws`, {
    since,
    token: async () => (await call('user', 'token')).token,
  });
  crieur.on('notification', ({ type, notification }) => {
    const isOpen = String(notification.filters.values.channel) === view?.id;
    if (type === 'refreshcontent') {
      // What is said in the open channel comes itself, and is read.
      if (!isOpen) refreshSoon();
    } else if (type === 'typing') {
      if (isOpen && notification.login !== me.login) showTyping(notification);
    } else if (notification.type === 'chat' && isOpen) {
      const { message } = notification;
      // Nothing is missing before what comes while nothing is: a connection brings all there is, in order.
      if (isContinuous() && Number(message.id) > view.complete) view.complete = Number(message.id);
      add([message]);
      view.messages.get(message.id).querySelector('.waiting')?.remove();
      forgetTyping(message.login);
      markRead();
    }
  });
  // Resumed, crieur brings what was missed. Otherwise that is at the API. Asked earlier, when the page is online, the API
  // would not know what is said until the list is in force.
  crieur.on('subscribed', ({ list, isResumed }) => {
    subscribedTo = list[0]?.filters.values.channel[0] ?? null;
    isReplaying = isResumed;
    if (!isResumed || view?.isAsked === false) catchUp();
    else showStatus();
  });
  crieur.on('resumed', () => {
    isReplaying = false;
    showStatus();
  });
  crieur.on('status', showStatus);
  crieur.on('error', ({ message }) => console.warn(message));
}

/** The open channel's messages, and a word when any channel has a new one. */
function subscribe() {
  const at = (page, ids) => ({ package: PACKAGE, page, filters: { values: { channel: ids } } });
  const ids = channels.map(({ id }) => id);
  crieur.subscribe([at('message_reader', [view.id]), at('channel_list', ids), at('message_typing', [view.id])]);
}

/** Whether nothing is missing before what crieur brings. */
const isContinuous = () => pending === null && crieur.isSubscribed && subscribedTo === (view?.id ?? null);
/** Whether the page shows everything, and will. */
const isLive = () => isContinuous() && !isReplaying;

const LABELS = {
  connecting: 'Connecting…',
  waiting: 'Reconnecting…',
  closed: 'Offline',
  behind: 'Catching up…',
  incomplete: 'Incomplete, trying again…',
  live: 'Live',
};

function showStatus() {
  const pill = find('#status');
  const retryAt = crieur?.retryAt ?? null;
  const fault = pending?.fault ?? null;
  let status = fault === null ? 'behind' : 'incomplete';
  if (crieur !== null && crieur.status !== 'online') status = crieur.status;
  else if (crieur !== null && isLive()) status = 'live';
  pill.dataset.status = status;
  pill.textContent = LABELS[status];
  pill.title = fault ?? (retryAt === null ? '' : `next try at ${new Date(retryAt).toLocaleTimeString()}`);
  list.setAttribute('aria-busy', (view?.complete ?? null) === null);
}

/**
 * Asks the API until it has answered, with growing delays, and shows that something is missing meanwhile. A later
 * question takes the place of an earlier one, which gives `false` then.
 */
async function persist(work) {
  const run = { fault: pending?.fault ?? null };
  pending = run;
  for (let limit = RETRY_FIRST_MS; pending === run; limit = Math.min(2 * limit, RETRY_MAX_MS)) {
    showStatus();
    try {
      await work();
      if (pending !== run) break;
      pending = null;
      showStatus();
      return true;
    } catch (error) {
      tolerate(error);
      run.fault = error.message;
    }
    if (pending === run) showStatus();
    // Pages that were all told "500" don't come back in the same instant.
    await pause(Math.random() * limit);
  }
  return false;
}

const catchUp = () =>
  persist(async () => {
    if (view !== null) await fetchMessages(view);
    await refresh();
  });

// Channels.

/** Many notifications at once are one question to the API. */
function refreshSoon() {
  // Where it fails, that is asked until it is answered, unless it is already.
  refreshing ??= setTimeout(() => refresh().catch(() => pending ?? catchUp()), REFRESH_DELAY_MS);
}

async function refresh() {
  clearTimeout(refreshing);
  refreshing = null;
  const asked = me;
  const answer = await call('channel', 'list');
  // Somebody else may have logged in meanwhile.
  if (me !== asked) return;
  channels = answer.channels;
  paintChannels();
}

/** Opens a channel, with its newest `messages` where they are there. */
function openChannel(id, messages = null) {
  find('#application').dataset.view = 'channel';
  if (view?.id === id) return;
  keepDraft();
  forgetTyping();
  view = { id, messages: new Map(), complete: null, isAsked: messages !== null, typingToldAt: 0 };
  list.replaceChildren();
  isAtEnd = true;
  const { name } = channels.find((channel) => channel.id === id);
  find('#channel-name').textContent = name;
  composer.details.placeholder = `Message to ${name}`;
  history.replaceState(null, '', `#${encodeURIComponent(name)}`);
  paintChannels();
  takeDraft();
  const isOnline = crieur.status === 'online';
  subscribe();
  if (messages !== null) {
    add(messages);
    view.complete = Number(messages.at(-1)?.id ?? 0);
    markRead();
  } else if (isOnline) {
    // The API is asked when the list is in force. Where that takes long, there is something to show before.
    const opened = view;
    setTimeout(() => view === opened && !view.isAsked && catchUp(), SUBSCRIBE_PATIENCE_MS);
  } else {
    catchUp();
  }
  showStatus();
}

function paintChannels() {
  const items = channels.map(({ id, name, unread }) => {
    const item = document.createElement('li');
    const button = document.createElement('button');
    button.type = 'button';
    button.dataset.channel = id;
    button.append(name);
    if (id === view?.id) button.setAttribute('aria-current', 'true');
    else if (unread > 0) button.append(badge(unread));
    button.addEventListener('click', () => openChannel(id));
    item.append(button);
    return item;
  });
  find('#channels').replaceChildren(...items);
  const sum = channels.reduce((all, { id, unread }) => all + (id === view?.id ? 0 : unread), 0);
  document.title = sum > 0 ? `(${sum}) Messages` : 'Messages';
}

function badge(unread) {
  const mark = document.createElement('span');
  mark.className = 'unread';
  mark.textContent = unread > 99 ? '99+' : unread;
  mark.setAttribute('aria-label', `${unread} unread`);
  return mark;
}

find('#back').addEventListener('click', () => {
  find('#application').dataset.view = 'channels';
});

// Messages.

/** Fetches what is missing where `complete` ends. Not behind the newest that is shown: before that, there may be a gap. */
async function fetchMessages(wanted) {
  wanted.isAsked = true;
  let after = wanted.complete === null ? null : Math.max(0, wanted.complete - OVERLAP);
  for (;;) {
    const answer = await call('message', 'list', { channelid: wanted.id, ...(after !== null && { after }) });
    // Another channel may have been opened meanwhile.
    if (wanted !== view) return;
    add(answer.messages);
    const last = Number(answer.messages.at(-1)?.id ?? 0);
    wanted.complete = Math.max(wanted.complete ?? 0, last);
    if (!answer.more || after === null) break;
    after = last;
  }
  markRead();
}

/** Adds what isn't there yet, at its place: what comes while the API answers may be in its answer too. */
function add(those) {
  const { messages } = view;
  for (const message of those) {
    if (messages.has(message.id)) continue;
    const item = paintMessage(message);
    messages.set(message.id, item);
    const next = [...list.children].findLast((other) => Number(other.dataset.id) < Number(message.id));
    if (next) next.after(item);
    else list.prepend(item);
  }
  paintRuns();
  if (isAtEnd) showEnd();
}

/** Whether the newest message is in sight, and has to stay so. */
let isAtEnd = true;
function showEnd() {
  list.scrollTop = list.scrollHeight;
}
list.addEventListener('scroll', () => {
  isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR_END_PIXELS;
});
// The composer grows with what is typed, and with a fault.
new ResizeObserver(() => isAtEnd && showEnd()).observe(list);

function paintMessage({ id, login, name, title, text, sentat }) {
  const item = document.createElement('li');
  item.dataset.id = id;
  item.dataset.login = login;
  const avatar = document.createElement('span');
  avatar.className = 'avatar';
  paintAvatar(avatar, { login, name });
  const who = document.createElement('strong');
  who.textContent = name;
  const when = document.createElement('time');
  when.dateTime = sentat;
  when.textContent = new Date(sentat).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
  const head = document.createElement('header');
  head.append(who, when);
  const body = document.createElement('p');
  body.textContent = text;
  item.append(avatar, head);
  if (title) {
    const heading = document.createElement('h2');
    heading.textContent = title;
    item.append(heading);
  }
  item.append(body);
  return item;
}

/** An author of several messages in a row is named once. */
function paintRuns() {
  let before = null;
  for (const item of list.children) {
    item.classList.toggle('same', before?.dataset.login === item.dataset.login);
    before = item;
  }
}

function paintAvatar(element, { login, name }) {
  element.textContent = name.slice(0, 1).toUpperCase();
  element.dataset.hue = [...login].reduce((sum, letter) => sum + letter.codePointAt(0), 0) % 6;
}

/** Tells the API once for many messages. */
let marking = null;
function markRead() {
  marking ??= setTimeout(() => {
    marking = null;
    if (view === null || view.messages.size === 0) return;
    const messageid = Math.max(...[...view.messages.keys()].map(Number));
    call('channel', 'read', { channelid: view.id, messageid }).catch(tolerate);
  }, REFRESH_DELAY_MS);
}

// The composer. What was typed and not sent stays with its channel, and with whose it is.

const drafts = new Map();
const draftOf = (channel, login) => JSON.stringify([channel, login]);

function keepDraft() {
  if (view === null) return;
  drafts.set(draftOf(view.id, me.login), { title: composer.title.value, details: composer.details.value });
  composer.reset();
}

function takeDraft() {
  const { title, details } = drafts.get(draftOf(view.id, me.login)) ?? { title: '', details: '' };
  composer.title.value = title;
  composer.details.value = details;
  composer.querySelector('.fault').textContent = '';
}

/** Puts what could not be sent in front of what was typed since. */
function giveBack(channel, { title, details, sentby }) {
  const isOpen = view?.id === channel && me.login === sentby;
  const key = draftOf(channel, sentby);
  const field = composer.details;
  const fromEnd = field.value.length - field.selectionEnd;
  if (isOpen) keepDraft();
  const since = drafts.get(key) ?? { title: '', details: '' };
  drafts.set(key, {
    title: since.title || title,
    // There is room for one title.
    details: [since.title && title, details, since.details].filter((text) => text !== '').join('\n'),
  });
  if (!isOpen) return;
  takeDraft();
  field.setSelectionRange(field.value.length - fromEnd, field.value.length - fromEnd);
}

/** It is saved, and comes back by crieur when the others get it. */
function showWaiting(id) {
  const note = document.createElement('small');
  note.className = 'waiting';
  note.textContent = 'Saved. The others will see it as soon as they can be told.';
  view.messages.get(id).append(note);
}

composer.addEventListener('submit', async (event) => {
  event.preventDefault();
  const fault = composer.querySelector('.fault');
  const { title, details } = composer;
  if (view === null || details.value.trim() === '') return;
  const channel = view.id;
  const name = find('#channel-name').textContent;
  const values = { channelid: Number(channel), title: title.value, details: details.value, sentby: me.login };
  fault.textContent = '';
  // What is typed from here on is another message.
  view.typingToldAt = 0;
  composer.reset();
  details.focus();
  try {
    const { message, notified } = await call('message', 'add', values);
    // Its notification comes too, and may be first. Both have the same id.
    if (view?.id === channel && !view.messages.has(message.id)) {
      add([message]);
      if (!notified) showWaiting(message.id);
    }
  } catch (error) {
    giveBack(channel, values);
    const why = error instanceof ApiError ? error.message : 'the server cannot be reached.';
    fault.textContent = view?.id === channel ? `It was not sent: ${why}` : `Not sent to ${name}: ${why}`;
    if (error.code === 'session') leave();
  }
});

// Who is typing: for now, and kept nowhere.

/** By login: the name, and the timer that ends it. */
const typists = new Map();

composer.details.addEventListener('input', () => {
  if (view === null || composer.details.value.trim() === '' || Date.now() - view.typingToldAt < TYPING_INTERVAL_MS) return;
  view.typingToldAt = Date.now();
  call('channel', 'typing', { channelid: Number(view.id) }).catch(tolerate);
});

function showTyping({ login, name }) {
  clearTimeout(typists.get(login)?.timer);
  typists.set(login, { name, timer: setTimeout(() => forgetTyping(login), TYPING_SHOWN_MS) });
  paintTyping();
}

/** What someone was typing has come, or will not; without a `login`, everybody's. */
function forgetTyping(login) {
  for (const each of login === undefined ? [...typists.keys()] : [login]) {
    clearTimeout(typists.get(each)?.timer);
    typists.delete(each);
  }
  paintTyping();
}

function paintTyping() {
  const names = [...typists.values()].map(({ name }) => name);
  let text = '';
  if (names.length > 2) text = 'Several people are typing…';
  else if (names.length > 0) text = `${names.join(' and ')} ${names.length > 1 ? 'are' : 'is'} typing…`;
  find('#typing').textContent = text;
}

composer.details.addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    composer.requestSubmit();
  }
});

if (session.load() === null) show(false);
else enter().catch(tolerate);
