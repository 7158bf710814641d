//! Which Redis this is, and whether it may lack what another had: what INFO says of it, and the epoch's key, which says for
//! which Redis the newest barrier of the stream speaks.
//!
//! Main types: [`Identity`] and [`Epoch`]. It can't be told from outside whether a restart or a failover has lost anything,
//! so each is doubted: [`Identity::may_have_lost`] alone decides.

use super::entry::Place;

/// Which Redis this is. Its texts are empty where INFO isn't allowed or doesn't say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Identity {
    /// New with each start.
    pub(super) run_id: Box<str>,
    /// The history of writes that it is the master of.
    replid: Box<str>,
    /// That which it went on from when it became a master.
    replid2: Option<Box<str>>,
}

impl Identity {
    /// Takes what one section of INFO says.
    pub(super) fn read(&mut self, section: &[u8]) {
        for line in String::from_utf8_lossy(section).lines() {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            // It goes into a text with separators.
            let is_plain =
                value.len() <= 64 && value.bytes().all(|byte| byte.is_ascii_alphanumeric());
            let value = || value.to_owned().into_boxed_str();
            match name {
                "run_id" if is_plain => self.run_id = value(),
                "master_replid" if is_plain => self.replid = value(),
                "master_replid2" if is_plain => {
                    let value = value();
                    self.replid2 = value.bytes().any(|byte| byte != b'0').then_some(value);
                }
                _ => {}
            }
        }
    }

    /// Whether data may have been lost between the two moments.
    ///
    /// A master's replid changes when its first replica attaches, and it has no replid2 then. One that was somebody's
    /// replica meanwhile has.
    pub(super) fn may_have_lost(before: &Self, now: &Self) -> bool {
        let was_replica =
            before.replid != now.replid && now.replid2.is_some() && now.replid2 != before.replid2;
        before.run_id != now.run_id || was_replica
    }

    /// As INFO says it.
    pub(super) fn section(&self) -> String {
        let Self {
            run_id,
            replid,
            replid2,
        } = self;
        let replid2 = replid2.as_deref().unwrap_or("0");
        format!("run_id:{run_id}\nmaster_replid:{replid}\nmaster_replid2:{replid2}\n")
    }

    /// As the epoch's key and barriers name it.
    pub(super) fn text(&self) -> String {
        format!("{}/{}", self.run_id, self.replid2.as_deref().unwrap_or("-"))
    }
}

/// The value of the epoch's key: `RUN_ID/REPLID2 BARRIER`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Epoch<'a> {
    run_id: &'a str,
    replid2: &'a str,
    /// Where its barrier is.
    pub(super) barrier: Place,
}

impl<'a> Epoch<'a> {
    pub(super) fn read(value: &'a [u8]) -> Option<Self> {
        let (identity, barrier) = std::str::from_utf8(value).ok()?.split_once(' ')?;
        let (run_id, replid2) = identity.split_once('/')?;
        let barrier = Place::read(barrier.as_bytes())?;
        Some(Self {
            run_id,
            replid2,
            barrier,
        })
    }

    /// Whether it is that of this Redis.
    pub(super) fn names(&self, identity: &Identity) -> bool {
        let is_lineage = identity
            .replid2
            .as_deref()
            .is_none_or(|replid2| replid2 == self.replid2);
        *self.run_id == *identity.run_id && is_lineage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(run_id: &str, replid: &str, replid2: &str) -> Identity {
        let mut identity = Identity::default();
        identity
            .read(format!("# Server\r\nredis_version:7.0.15\r\nrun_id:{run_id}\r\n").as_bytes());
        identity.read(
            format!("role:master\r\nmaster_replid:{replid}\r\nmaster_replid2:{replid2}\r\n")
                .as_bytes(),
        );
        identity
    }

    const ZEROS: &str = "0000000000000000000000000000000000000000";

    #[test]
    fn loss_is_possible_after_a_restart_and_after_a_failover() {
        let before = identity("a", "r1", ZEROS);
        for (now, is_possible, what) in [
            (identity("a", "r1", ZEROS), false, "nothing"),
            (identity("a", "r2", ZEROS), false, "its first replica came"),
            (identity("b", "r1", ZEROS), true, "restarted"),
            (
                identity("b", "r2", "r1"),
                true,
                "another one, which was its replica",
            ),
            (identity("a", "r2", "r1"), true, "demoted and promoted"),
        ] {
            assert_eq!(
                Identity::may_have_lost(&before, &now),
                is_possible,
                "{what}"
            );
        }
        let promoted = identity("a", "r2", "r1");
        assert!(!Identity::may_have_lost(&promoted, &promoted));
        assert!(!Identity::may_have_lost(
            &promoted,
            &identity("a", "r3", "r1")
        ));
        assert!(Identity::may_have_lost(
            &promoted,
            &identity("a", "r3", "r2")
        ));
    }

    #[test]
    fn the_epoch_names_one_redis() {
        let promoted = identity("a", "r2", "r1");
        let value = format!("{} 5-1", promoted.text());
        assert_eq!(value, "a/r1 5-1");
        let epoch = Epoch::read(value.as_bytes()).expect("a value");
        assert_eq!((epoch.barrier.millis, epoch.barrier.sequence), (5, 1));
        assert!(epoch.names(&promoted));
        // Its lineage is forgotten with the backlog.
        assert!(epoch.names(&identity("a", "r3", ZEROS)));
        assert!(!epoch.names(&identity("a", "r3", "r2")));
        assert!(!epoch.names(&identity("b", "r2", "r1")));
        let fresh = identity("a", "r1", ZEROS);
        assert_eq!(fresh.text(), "a/-");
        let unknown = Identity::default();
        assert!(Epoch::read(b"/- 1-1").expect("a value").names(&unknown));
        for value in ["", "a/- ", "a/-", "a 1-1", "a/- 1", "\u{e9}"] {
            assert_eq!(Epoch::read(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn it_is_what_it_says_of_itself() {
        for was in [
            Identity::default(),
            identity("a", "r1", ZEROS),
            identity("a", "r2", "r1"),
        ] {
            let mut read = Identity::default();
            read.read(was.section().as_bytes());
            assert_eq!(read, was);
        }
    }

    #[test]
    fn odd_information_is_passed_over() {
        let mut identity = Identity::default();
        identity.read(b"run_id:a b\nmaster_replid\n\xff\xfe:1\r\nmaster_replid2:/\r\n");
        assert_eq!(identity, Identity::default());
    }
}
