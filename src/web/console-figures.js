/** The figures of the server (`metrics`), if it shows any to this page: in groups, in words, with their change a second. */

import { $, bytes, clock, duration, element, figure } from './console-page.js';

const GROUPS = {
  Connections: /^(connections|accept|upgrades|requests|tokens|sessions|protocol|slow|peers|ping|messages|received|reads)/,
  Notifications: /^(notification|deliver|subscription|match|fan_out)/,
  History: /^(history|resumes|replay|catching|gaps)/,
  Redis: /^redis/,
  'Memory and system': /^(process|loop|send_queue|buffer|log|build|handover)/,
  Others: /^/,
};
/** The names of those that the server's own words don't name well. */
const NAMES = {
  'connections client': 'Clients connected',
  'connections publisher': 'Publishers connected',
  connections: 'Connections',
  deliveries_total: 'Notifications delivered',
  resumes_total: 'Clients that came back',
  build_info: 'Version',
  process_start_time_seconds: 'Running since',
};

let hasMetrics = true;
let reading = { samples: new Map(), at: 0 };
/** `empty` or `off`, where the history had nothing in it. */
let lack = '';

/** The next server may be another one. */
export function forgetFigures() {
  hasMetrics = true;
  lack = '';
  reading.samples.clear();
  $('history').textContent = '';
}

/** A numbered notification has come: a history that is still empty is off. */
export function noteNumbered() {
  if (lack !== 'empty') return;
  lack = '';
  readMetrics(true);
}

export async function readMetrics(isAfterNotification = false) {
  if (!hasMetrics) return;
  try {
    const response = await fetch('metrics', { cache: 'no-store' });
    hasMetrics = response.ok;
    if (hasMetrics) {
      const text = await response.text();
      const read = (pattern) => new Map([...text.matchAll(pattern)].map(([, name, value]) => [name, value]));
      const samples = read(/^(\w+(?:\{.*\})?) (\S+)/gm);
      drawHistory(samples, isAfterNotification);
      if (!isAfterNotification) drawMetrics(samples, read(/^# HELP (\S+) (.*?)\.?$/gm));
    }
  } catch {
    // The connection shows that the server is away.
  }
  $('metrics').hidden = !hasMetrics || reading.at === 0;
}

/** A server doesn't say that it keeps nothing: a notification that has an id and isn't kept does. */
function drawHistory(samples, isAfterNotification) {
  if (!samples.has('crieur_history_entries') || $('connection').dataset.status !== 'online') return;
  const [entries, size, age] = ['entries', 'bytes', 'oldest_seconds'].map((name) =>
    readable(samples.get(`crieur_history_${name}`), name),
  );
  if (entries !== '0') lack = '';
  else if (isAfterNotification) lack = 'off';
  else lack ||= 'empty';
  $('history').textContent = `History: ${lack || `${entries} kept, ${size}, the oldest ${age} old`}`;
}

/** In groups, each counter with its change a second since the reading before. */
function drawMetrics(samples, help) {
  const at = Date.now();
  const elapsed = (at - reading.at) / 1000;
  const lists = {};
  for (const title of Object.keys(GROUPS)) lists[title] = element('dl');
  for (const [key, value] of samples) {
    const [, family, part, labels = ''] = /^(\w+?)(_bucket|_sum|_count)?(\{.*)?$/.exec(key);
    // A histogram is its count and its mean. What never happened is in the raw text.
    if ((part !== '_count' && samples.has(`${family}_count`)) || (labels !== '' && value === '0')) continue;
    const short = family.replace('crieur_', '');
    const label = labels.replace(/[{,]\w+="(.*?)"}?/g, ' $1').replaceAll('_', ' ');
    const words = NAMES[short] ?? help.get(family);
    const title = Object.keys(GROUPS).find((each) => GROUPS[each].test(words ? short : ''));
    const name = NAMES[short + label] ?? words + (label && `:${label}`);
    const unit = part ? '' : short;
    let shown = short.endsWith('_info') ? '' : readable(value, unit);
    if (part && value > 0) shown = `mean ${readable(samples.get(`${family}_sum`) / value, short)} of ${shown}`;
    const was = part || short.endsWith('_total') ? reading.samples.get(key) : undefined;
    const change = was === undefined || was === value ? '' : `${readable((value - was) / elapsed, unit)}/s`;
    const term = element('dt', title === 'Others' ? key : name, { title: key });
    lists[title].append(term, element('dd', shown), element('dd', change));
  }
  const used = Object.entries(lists).filter(([, list]) => list.firstChild);
  $('metrics-list').replaceChildren(
    ...used.map(([title, list]) => element('section', [element('h3', title), list])),
  );
  $('metrics-time').textContent = clock(new Date(at));
  reading = { samples, at };
}

/** A value in the unit that its name ends with. */
function readable(value, name) {
  if (name === 'process_start_time_seconds') return new Date(value * 1000).toLocaleString('sv');
  if (name.endsWith('seconds')) return duration(value);
  return /bytes(_total)?$/.test(name) ? bytes(value) : figure(value);
}
