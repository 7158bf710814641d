/**
 * The client of crieur as a React hook, for React and React Native.
 *
 * Owns when a client begins and ends: with the component and its URL, not with what is drawn.
 * Handlers may be new functions at each rendering; the latest is called.
 */

import { useCallback, useEffect, useRef, useState } from 'react';
import { Crieur } from './crieur.js';

const EMPTY = '[]';
const CONNECTING = { status: 'connecting', retryAt: null, error: null, inForce: null };
const CLOSED = { ...CONNECTING, status: 'closed' };

export function useCrieur(url, subscriptions, options = {}) {
  const latest = useRef(options);
  const client = useRef(null);
  /** Whether a `subscribed` that isn't resumed has yet to be drawn: React may leave out what is replaced at once. */
  const owesLoad = useRef(false);
  /** What `subscribed` has said on this connection. */
  const said = useRef(null);
  /** What the component began with: a position, and the list that it is one of, the first that isn't empty. */
  const origin = useRef(null);
  const [state, setState] = useState(CONNECTING);
  // Compared by what it says: a list that is written anew at each rendering is the same set.
  const set = JSON.stringify(subscriptions ?? []);

  useEffect(() => {
    latest.current = options;
  });

  useEffect(() => {
    if (!url) return undefined;
    const { token, since, ...others } = latest.current;
    origin.current ??= { since, set: EMPTY };
    const isOrigin = origin.current.set === EMPTY || origin.current.set === set;
    const crieur = new Crieur(url, {
      ...others,
      since: isOrigin ? origin.current.since : null,
      token: token && (() => latest.current.token()),
    });
    client.current = crieur;
    const handlers = [
      crieur.on('notification', (message, text) => latest.current.onNotification?.(message, text)),
      crieur.on('gap', (event) => latest.current.onGap?.(event)),
      crieur.on('error', (error) => {
        setState((before) => ({ ...before, error }));
        latest.current.onError?.(error);
      }),
      crieur.on('status', ({ status, retryAt }) => {
        setState(({ error }) => ({ status, retryAt, error: status === 'online' ? null : error, inForce: null }));
      }),
      crieur.on('subscribed', ({ list, isFirst, isResumed }) => {
        owesLoad.current ||= !isResumed;
        const event = { list, isFirst, isResumed: !owesLoad.current };
        const inForce = { url, set: JSON.stringify(list), event };
        said.current = inForce;
        setState((before) => ({ ...before, inForce }));
      }),
    ];
    return () => {
      for (const remove of handlers) remove();
      crieur.close();
    };
  }, [url]);

  // Behind the one that makes the client, so that a new client gets its set as well.
  useEffect(() => {
    const crieur = client.current;
    if (crieur === null) return;
    if (origin.current?.set === EMPTY) origin.current.set = set;
    crieur.subscribe(JSON.parse(set));
    const inForce = crieur.isSubscribed ? said.current : null;
    setState((before) => (before.inForce === inForce ? before : { ...before, inForce }));
  }, [url, set]);

  const wake = useCallback(() => client.current?.wake(), []);
  const getPosition = useCallback(() => client.current?.position ?? null, []);
  const { status, retryAt, error, inForce } = url ? state : CLOSED;
  // Not that of the list before: an effect of this rendering would ask the API too early.
  const subscribed = inForce?.url === url && inForce.set === set ? inForce.event : null;
  useEffect(() => {
    if (subscribed?.isResumed === false) owesLoad.current = false;
  }, [subscribed]);
  return { status, retryAt, error, subscribed, wake, getPosition };
}
