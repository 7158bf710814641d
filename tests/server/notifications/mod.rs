//! From a publisher to subscribers: asking, publishing, matching, delivering.

mod catching_up;
mod delivery;
mod history;
mod ids;
mod keys;
mod lists_meanwhile;
mod many_clients;
mod matching;
mod position;
mod publishing;
mod publishing_over_http;
mod resuming;
mod subscribing;
