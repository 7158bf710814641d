import type { CrieurError, CrieurOptions, NotificationMessage, Status, SubscribedEvent, Subscription } from './crieur.js';

export interface UseCrieurOptions<Content = any> extends CrieurOptions {
  /** A notification: the message, and its text as it came. */
  onNotification?: (message: NotificationMessage<Content>, text: string) => void;
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
   * An effect that depends on it asks the API for what was missed.
   */
  subscribed: SubscribedEvent | null;
  /** Tries now if it waits, and if it is online, sees whether it still is. */
  wake: () => void;
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
