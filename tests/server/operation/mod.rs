//! Running the server: settings, signals, logs, metrics, and accidents of the machine.

mod accidents;
mod checking;
mod command_line;
mod descriptors;
mod handover;
mod logs;
mod metrics;
mod operators;
mod reaching;
mod reloading;
mod resuming_commands;
mod service_manager;
mod stopping;
mod surviving;
