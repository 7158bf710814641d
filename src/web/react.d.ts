import type { CrieurError, CrieurOptions, GapEvent, NotificationMessage, Status, SubscribedEvent, Subscription } from './crieur.js';

export interface UseCrieurOptions<Content = any> extends CrieurOptions {
  /** A notification: the message, and its text as it came. */
  onNotification?: (message: NotificationMessage<Content>, text: string) => void;
  /** Something may have been missed, and the server can't say what: load your state again. */
  onGap?: (event: GapEvent) => void;
  /** Something went wrong. */
  onError?: (error: CrieurError) => void;
}

export interface CrieurState {
  status: Status;
  /** The time of the next try, in milliseconds like `Date.now()`; `null` unless `waiting`. */
  retryAt: number | null;
  /** What went wrong since it was last online. */
  error: CrieurError | null;
  /**
   * Another object each time that `subscriptions` are in force from then on; `null` while they are not.
   * An effect that depends on it asks the API for what was published before, unless it `isResumed`.
   */
  subscribed: SubscribedEvent | null;
  /** Tries now if it waits, and if it is online, sees whether it still is. */
  wake: () => void;
  /** The position of the client, for apps that keep it over a cold start; `null` before the server has told one. */
  getPosition: () => string | null;
}

/**
 * A client of the server at `url` for as long as the component is mounted; none while `url` is empty.
 * `subscriptions` and the handlers may be written anew at each rendering; a new `url` is a new client.
 */
export function useCrieur<Content = any>(
  url: string | null | undefined,
  subscriptions: readonly Subscription[] | null | undefined,
  options?: UseCrieurOptions<Content>,
): CrieurState;
