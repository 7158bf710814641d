/**
 * The client of crieur as a React hook, for React and React Native.
 *
 * Owns when a client begins and ends: with the component and its URL, not with what is drawn.
 * Handlers may be new functions at each rendering; the latest is called.
 */

import { useCallback, useEffect, useRef, useState } from 'react';
import { Crieur } from './crieur.js';

const CONNECTING = { status: 'connecting', retryAt: null, error: null, inForce: null };
const CLOSED = { ...CONNECTING, status: 'closed' };

export function useCrieur(url, subscriptions, options = {}) {
  const latest = useRef(options);
  const client = useRef(null);
  const [state, setState] = useState(CONNECTING);
  // Compared by what it says: a list that is written anew at each rendering is the same set.
  const set = JSON.stringify(subscriptions ?? []);

  useEffect(() => {
    latest.current = options;
  });

  useEffect(() => {
    if (!url) return undefined;
    const { WebSocket, appState, token } = latest.current;
    const crieur = new Crieur(url, { WebSocket, appState, token: token && (() => latest.current.token()) });
    client.current = crieur;
    const handlers = [
      crieur.on('notification', (message, text) => latest.current.onNotification?.(message, text)),
      crieur.on('error', (error) => {
        setState((before) => ({ ...before, error }));
        latest.current.onError?.(error);
      }),
      crieur.on('status', ({ status, retryAt }) => {
        setState(({ error }) => ({ status, retryAt, error: status === 'online' ? null : error, inForce: null }));
      }),
      crieur.on('subscribed', (event) => {
        setState((before) => ({ ...before, inForce: { url, set: JSON.stringify(event.list), event } }));
      }),
    ];
    return () => {
      for (const remove of handlers) remove();
      client.current = null;
      crieur.close();
    };
  }, [url]);

  // Behind the one that makes the client, so that a new client gets its set as well.
  useEffect(() => {
    const crieur = client.current;
    if (crieur === null) return;
    crieur.subscribe(JSON.parse(set));
    if (!crieur.isSubscribed) setState((before) => (before.inForce === null ? before : { ...before, inForce: null }));
  }, [url, set]);

  const wake = useCallback(() => client.current?.wake(), []);
  const { status, retryAt, error, inForce } = url ? state : CLOSED;
  // Not that of the list before: an effect of this rendering would ask the API too early.
  const subscribed = inForce?.url === url && inForce.set === set ? inForce.event : null;
  return { status, retryAt, error, subscribed, wake };
}
