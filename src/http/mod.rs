//! HTTP/1.1 without sockets: requests in, responses out. Names nothing else of ours but `wire`.

pub mod body;
pub mod date;
pub mod exchange;
pub mod head;
pub mod host;
pub mod response;
pub mod status;
