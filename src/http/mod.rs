//! HTTP/1.1 without sockets: request heads in, responses out. Names nothing else of ours.

pub mod head;
pub mod response;
pub mod status;
