/**
 * What the parts of the console share: text into elements, values for people, and requests that need permission to
 * publish.
 *
 * Invariants: what comes from the server becomes text, never markup. Tokens are in their field and in requests; the key
 * of the link that the server printed is in this tab's storage, too, and nowhere else.
 */

/** What is longer is shown as it came, so far; it may also be nested deeper than a function can call itself. */
const TEXT_SHOWN_MAX = 4_000;
const LINE_WIDTH = 88;
const ASK_TIMEOUT_MS = 10_000;

export const $ = (id) => document.getElementById(id);

/** An element with these properties, and what is in it. */
export function element(name, text = '', properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...[text].flat().filter((part) => part !== ''));
  return made;
}

export function button(text, onclick, label = null) {
  const made = element('button', text, { type: 'button', onclick });
  if (label !== null) made.setAttribute('aria-label', label);
  return made;
}

export function show(id, kind, text) {
  $(id).dataset.kind = kind;
  $(id).textContent = text;
  if (kind === 'bad') $(id).closest('details')?.setAttribute('open', '');
}

export const clock = (time) => time.toTimeString().slice(0, 8);
export const durationSince = (time) => duration((Date.now() - time) / 1000);

export function duration(seconds) {
  if (seconds > 0 && seconds < 1) {
    return seconds < 0.001 ? `${Math.round(seconds * 1e6)} µs` : `${Math.round(seconds * 1000)} ms`;
  }
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h`;
}

export const figure = (value) => Number(value).toLocaleString('en', { maximumFractionDigits: value < 10 ? 2 : 0 });
export const counted = (count, one, many = `${one}s`) => `${figure(count)} ${count === 1 ? one : many}`;

export function bytes(value) {
  const step = value < 1024 ? 0 : value < 1024 ** 2 ? 1 : 2;
  return `${figure(value / 1024 ** step)} ${['B', 'KiB', 'MiB'][step]}`;
}

/** `value` as JSON for people: on one line, behind `name`, where that fits. */
export function pretty(value, width = LINE_WIDTH, indent = '', name = '') {
  if (value === null || typeof value !== 'object') return name + JSON.stringify(value);
  const isList = Array.isArray(value);
  const [open, close, space] = isList ? ['[', ']', ''] : ['{', '}', ' '];
  const deeper = `${indent}  `;
  const parts = Object.entries(value).map(([key, entry]) =>
    pretty(entry, width, deeper, isList ? '' : `${JSON.stringify(key)}: `),
  );
  if (parts.length === 0) return name + open + close;
  const line = name + open + space + parts.join(', ') + space + close;
  if (indent.length + line.length <= width && !line.includes('\n')) return line;
  const lines = parts.map((part) => deeper + part).join(',\n');
  return `${name}${open}\n${lines}\n${indent}${close}`;
}

/** What is shown of a value whose JSON is `text`: not all of a very long one, and a long one as it came. */
export function contentOf(value, text) {
  if (text.length <= TEXT_SHOWN_MAX) return pretty(value);
  return `${text.slice(0, TEXT_SHOWN_MAX)}\n… ${(text.length - TEXT_SHOWN_MAX).toLocaleString('en')} more characters`;
}

/** The JSON in a field; marks the field and throws where there is none. */
export function readField(id) {
  try {
    const value = JSON.parse($(id).value);
    $(id).removeAttribute('aria-invalid');
    return value;
  } catch (error) {
    $(id).setAttribute('aria-invalid', 'true');
    $(id).focus();
    throw new Error(`This is not JSON: ${error.message}`);
  }
}

export async function copyText(text, button) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = 'Copied';
  } catch {
    // Only secure origins, and localhost, have a clipboard.
    button.textContent = 'Not allowed';
  }
  setTimeout(() => {
    button.textContent = label;
  }, 1500);
}

// Permission to publish: the key of the link that the server printed, or a token.

const KEY = 'publish';

/** Takes the key out of the address, where others could read it. Says whether there was one. */
export function takeKey() {
  const [, key] = /^#publish=([\w-]+)$/.exec(location.hash) ?? [];
  if (key) {
    sessionStorage.setItem(KEY, key);
    history.replaceState(null, '', location.pathname + location.search);
  }
  showKey();
  return Boolean(key);
}

function showKey() {
  const hasKey = sessionStorage.getItem(KEY) !== null;
  $('has-key').hidden = !hasKey;
  $('needs-token').hidden = hasKey;
}

/** Asks the server for what only publishers may. Throws an error that says why it refuses, and what to do. */
export async function ask(path, body) {
  const key = sessionStorage.getItem(KEY);
  const proof = key ?? $('token').value.trim();
  if (/[^!-~]/.test(proof)) throw new Error('A token is of visible ASCII characters, without spaces.');
  const headers = proof === '' ? {} : { Authorization: `Bearer ${proof}` };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  const options = { method: body === undefined ? 'GET' : 'POST', headers, body, cache: 'no-store', credentials: 'omit' };
  let response;
  let text;
  try {
    response = await fetch(path, { ...options, signal: AbortSignal.timeout(ASK_TIMEOUT_MS) });
    text = await response.text();
  } catch (error) {
    throw new Error(error.name === 'TimeoutError' ? 'The server did not answer.' : 'The server can’t be reached.');
  }
  if (response.ok) return text;
  if (response.status === 401 || response.status === 403) {
    if (key !== null) {
      sessionStorage.removeItem(KEY);
      showKey();
    }
    // A server that has tokens says that one is needed, or that it isn't this one.
    const hasTokens = text.includes('token');
    const refused = hasTokens ? 'The server refuses this token.' : 'This server has no publish tokens.';
    const why = key !== null ? 'The key of this page is of an earlier start of the server.' : proof !== '' ? refused : 'A browser needs permission.';
    const remedy = hasTokens ? 'enter a publish token' : 'start it with --publish-token-file';
    throw new Error(`${why} Open the link that the server printed in its terminal, or ${remedy}.`);
  }
  throw Object.assign(new Error(errorOf(text)), { status: response.status });
}

function errorOf(text) {
  try {
    const { code, detail } = JSON.parse(text).error;
    return `${code}: ${detail}`;
  } catch {
    return text.trim();
  }
}
