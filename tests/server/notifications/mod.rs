//! From a publisher to subscribers: asking, publishing, matching, delivering.

mod delivery;
mod many_clients;
mod matching;
mod publishing;
mod publishing_over_http;
mod subscribing;
