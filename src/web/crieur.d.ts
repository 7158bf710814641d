/** A subscription: the name of a channel, or a page and what is wanted of it. */
export type Subscription = string | PageSubscription;

/** Everything of a page that meets every criterion of `filters.values`. */
export interface PageSubscription {
  package: string;
  page: string;
  filters?: { values?: Criteria } | null | [];
}

/** A text, a number or a boolean; compared by its text. */
export type Scalar = string | number | boolean;

/** Criteria by name, or values that any name may have; `true` is any value. */
export type Criteria = Scalar | readonly Scalar[] | { readonly [name: string]: Scalar | readonly Scalar[] } | null;

/** The server's answer to a set of subscriptions. */
export interface Subscribed {
  /** How many there are. */
  subscriptions: number;
  /** The seconds of silence after which the server asks whether its peer lives. */
  heartbeat: number;
}

/** What a notification comes in. */
export interface NotificationMessage<Content = any> {
  /** `notification`, or what the publisher chose. */
  type: string;
  /** What was published. */
  notification: Content;
  /** The server's id of it, which is the client's position from here on; none where the server doesn't keep it. */
  id?: string;
}

export type Status = 'connecting' | 'online' | 'waiting' | 'closed';

/** The status, and what led to it. */
export interface StatusChange {
  readonly status: Status;
  /** The time of the next try, in milliseconds like `Date.now()`; `null` unless `waiting`. */
  readonly retryAt: number | null;
  /** The status code of the Close that ended the connection before, if there was one. */
  readonly code: number | null;
  /** The server's word for it, or `timeout`, `silent`, `token`, or the word with which the server refused the list. */
  readonly reason: string | null;
}

/**
 * A list of subscriptions is in force: from here on nothing of it is missed. Unless it `isResumed`,
 * what was published before is at the API.
 */
export interface SubscribedEvent {
  /** The list, as it was given. */
  readonly list: readonly Subscription[];
  /** Whether it is the first on its connection: whether the connection is a new one, or just the list. */
  readonly isFirst: boolean;
  /**
   * Whether it goes on where the same list was before, or at `since`: what was missed follows, and
   * there is nothing to ask the API for.
   */
  readonly isResumed: boolean;
}

/** The connection is a new one, and what came behind the position for its list has been handed on. */
export interface ResumedEvent {
  /** How many notifications were missed. */
  readonly missed: number;
}

/** Something may have been missed, and the server can't say what: load your state again. */
export interface GapEvent {
  /**
   * The server's word (`expired`, `unknown`, `forbidden`, or one of a later version), or `no-history` where the server
   * doesn't number notifications, or `resume` is off.
   */
  readonly reason: string;
}

/** What went wrong. */
export class CrieurError extends Error {
  constructor(code: string, message: string);
  /**
   * The server's word (`invalid-subscription`, `too-many-subscriptions`, `forbidden`, …), or one of
   * `bad-message`, `bad-url`, `closed`, `refused`, `token`, `unauthorized`.
   */
  readonly code: string;
}

/** As much of the standard WebSocket as is used. */
export interface WebSocketLike {
  onopen: any;
  onmessage: any;
  onclose: any;
  onerror: any;
  send(data: string): void;
  close(code?: number, reason?: string): void;
}

/** React Native's `AppState`, as far as it is used. */
export interface AppStateLike {
  readonly currentState: string;
  addEventListener(event: 'change', handler: (state: any) => void): { remove(): void };
}

export interface CrieurOptions {
  /** The constructor of WebSockets; the global one by default. */
  WebSocket?: new (url: string) => WebSocketLike;
  /** Gives a token, sent with each set of subscriptions; asked again when the server refuses it, or what it allows. */
  token?: () => string | Promise<string>;
  /** React Native's `AppState`: an app that comes to the front tries at once. */
  appState?: AppStateLike;
  /** The position to begin at: that of the state that the app has already, and of its first list. */
  since?: string | null;
  /** Whether to have the server number notifications, and to get what was missed from it; `true` by default. */
  resume?: boolean;
}

/** The handlers of the events. */
export interface CrieurEvents<Content = any> {
  /** A notification: the message, and its text as it came. */
  notification: (message: NotificationMessage<Content>, text: string) => void;
  /** The status has changed. */
  status: (change: StatusChange) => void;
  /** The list that was given last is in force: said at each connection, of each other list, and behind a gap. */
  subscribed: (event: SubscribedEvent) => void;
  /** What was missed has come. `subscribed` has said whether there is more to load. */
  resumed: (event: ResumedEvent) => void;
  /** Something may have been missed: load your state again. `subscribed` follows as soon as its list is in force. */
  gap: (event: GapEvent) => void;
  /** Something went wrong. Only where the status is `closed` behind it was it the end. */
  error: (error: CrieurError) => void;
}

/** A client of the server at `url`; it connects by itself, and again until `close()`. */
export class Crieur<Content = any> {
  constructor(url: string, options?: CrieurOptions);
  readonly status: Status;
  /** Whether the set that was given last is in force on the connection, so that nothing of it is missed. */
  readonly isSubscribed: boolean;
  /** The time of the next try, in milliseconds like `Date.now()`; `null` unless `waiting`. */
  readonly retryAt: number | null;
  /**
   * The id up to which everything has been handed on; `null` before the server has told one. A later client can
   * begin at it with `since`.
   */
  readonly position: string | null;
  /** How long the last ping took, in milliseconds; `null` before the first. */
  readonly roundTrip: number | null;
  /** Calls `handler` at each `event`; returns a function that ends this. */
  on<Event extends keyof CrieurEvents<Content>>(event: Event, handler: CrieurEvents<Content>[Event]): () => void;
  /**
   * Replaces the set of subscriptions, online or not, now and at each connection to come. Resolves with
   * the server's answer once the set is in force, however long that takes; rejects if it doesn't take the set, which leaves
   * the set before in force, and when the client is closed.
   */
  subscribe(subscriptions: readonly Subscription[]): Promise<Subscribed>;
  /** Something may have changed: tries now if it waits, and if it is online, sees whether it still is. */
  wake(): void;
  /** Ends it for good. */
  close(): void;
}
