//! Why there is no link to a Redis, and whether another server is tried then.
//!
//! Main type: [`Failure`].

use std::fmt;

use super::connection::Unfit;
use super::reply::Broken;

/// Errors by which a server says that it is of no use now, to whoever asks for whatever.
const SERVER_ERRORS: [&str; 7] = [
    "READONLY",
    "LOADING",
    "MASTERDOWN",
    "UNBLOCKED",
    "NOAUTH",
    "CLUSTERDOWN",
    "MOVED",
];

/// Why a link isn't there, or is there no more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Failure {
    Ended(Option<String>),
    Silent,
    Unfit(Unfit),
    /// The two connections lead to different servers.
    TwoServers,
}

impl From<Unfit> for Failure {
    fn from(unfit: Unfit) -> Self {
        Self::Unfit(unfit)
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Self::Unfit(Unfit::Broken(broken))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(None) => f.write_str("it has closed the connection"),
            Self::Ended(Some(error)) => f.write_str(error),
            Self::Silent => f.write_str("it does not answer"),
            Self::Unfit(Unfit::Broken(Broken(what))) => write!(f, "it is not understood: {what}"),
            Self::Unfit(Unfit::Refused(command, word)) => {
                write!(f, "it refuses {command} ({word})")
            }
            Self::Unfit(Unfit::NotMaster) => f.write_str("it is not a master"),
            Self::TwoServers => f.write_str("two connections to it lead to different servers"),
        }
    }
}

impl Failure {
    /// Whether it is useless to try this server again at once.
    pub(super) const fn is_of_server(&self) -> bool {
        matches!(
            self,
            Self::Silent | Self::TwoServers | Self::Unfit(Unfit::Refused(..) | Unfit::NotMaster)
        )
    }
}

/// Whether an error, by its first word, is that of a server which is of no use now.
pub(super) fn is_of_server(error: &str) -> bool {
    SERVER_ERRORS.contains(&error)
}
