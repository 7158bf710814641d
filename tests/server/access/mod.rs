//! Permission to publish, admission, and how much of everything one client may have.

mod client_tokens;
mod console_key;
mod history;
mod key_commands;
mod origins_and_addresses;
mod permission;
mod publish_lane;
mod publish_tokens;
mod rates;
