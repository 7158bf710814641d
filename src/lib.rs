//! crieur: a real-time notification server for an API host.
#![doc = ""]

pub mod application;
pub mod cli;
pub mod client;
pub mod config;
pub mod http;
pub mod hub;
pub mod id;
pub mod metrics;
pub mod net;
pub mod random;
pub mod time;
pub mod ws;
