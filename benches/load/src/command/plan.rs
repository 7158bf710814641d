//! Who subscribes to what, to whom each notification goes, and when.

use std::fmt::Write as _;

use crate::options::{Command, Options};
use crate::system::now_ns;

/// Coprime to every sensible number of values, so that all of them have their turn.
const STRIDE: u64 = 1_000_003;

/// The subscribers in groups that all get the same.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Members of each group; the last group is the bystanders'.
    pub(crate) sizes: Vec<usize>,
    /// Values in all; value v belongs to group v modulo the number of groups with members.
    values: u32,
    groups: u32,
}

impl Plan {
    pub(crate) fn new(command: Command, options: &Options) -> Result<Self, String> {
        let (mut sizes, values) = match command {
            Command::Match => {
                let Options {
                    connections,
                    recipients,
                    subscriptions,
                    ..
                } = *options;
                if connections % recipients != 0 {
                    return Err(format!(
                        "{connections} connections can't be {recipients} recipients each: --recipients divides --connections"
                    ));
                }
                (vec![recipients; connections / recipients], subscriptions)
            }
            _ => {
                let channels = options.channels;
                let size = |index| (options.subscribers + channels - 1 - index) / channels;
                ((0..channels).map(size).collect(), channels)
            }
        };
        if values < sizes.len() {
            return Err(format!(
                "{values} subscriptions are fewer than the {} groups of connections",
                sizes.len()
            ));
        }
        let groups = sizes.len() as u32;
        sizes.push(options.bystanders);
        Ok(Self {
            sizes,
            values: values as u32,
            groups,
        })
    }

    /// Those that stay, who get all that is sent, then clients in channels of their own.
    pub(crate) fn storm(live: usize, clients: usize, channels: usize) -> Self {
        let size = |channel| (clients + channels - 1 - channel) / channels;
        Self {
            sizes: std::iter::once(live)
                .chain((0..channels).map(size))
                .collect(),
            values: 1,
            groups: 1,
        }
    }

    /// Subscribers spread over channels, and nobody beside them.
    pub(crate) fn spread(subscribers: usize, channels: usize) -> Self {
        let size = |channel| (subscribers + channels - 1 - channel) / channels;
        Self {
            sizes: (0..channels).map(size).chain([0]).collect(),
            values: channels as u32,
            groups: channels as u32,
        }
    }

    /// The last group, whoever is in it, and the value that it has subscribed to.
    pub(crate) const fn bystanders(&self) -> (usize, u32) {
        (self.groups as usize, self.values)
    }

    /// All other groups and values.
    pub(crate) fn all(&self) -> impl Iterator<Item = (usize, u32)> + Clone {
        let groups = self.groups;
        (0..self.values).map(move |value| ((value % groups) as usize, value))
    }

    /// The group and the value of the `number`th notification.
    pub(crate) fn next(&self, number: u64) -> (usize, u32) {
        let value = (number.wrapping_mul(STRIDE) % u64::from(self.values)) as u32;
        ((value % self.groups) as usize, value)
    }

    /// What members of a group subscribe to.
    pub(crate) fn values_of(&self, group: usize) -> impl Iterator<Item = u32> {
        let is_bystander = group == self.groups as usize;
        // A value that no notification has.
        let (start, end) = if is_bystander {
            (self.values, self.values + 1)
        } else {
            (group as u32, self.values)
        };
        (start..end).step_by(self.groups as usize)
    }

    /// All subscribers.
    pub(crate) fn members(&self) -> usize {
        self.sizes.iter().sum()
    }

    /// Whether a subscriber is one of the `numbered`, which are spread evenly over all.
    pub(crate) fn is_numbered(&self, member: usize, numbered: usize) -> bool {
        let all = self.members().max(1);
        let numbered = numbered.min(all);
        (member + 1) * numbered / all > member * numbered / all
    }

    /// The first value of each subscriber, which may be the only one.
    pub(crate) fn values_of_members(&self) -> impl Iterator<Item = u32> {
        let groups = self.groups_of_members();
        groups.filter_map(|group| self.values_of(group).next())
    }

    /// The group of each subscriber.
    pub(crate) fn groups_of_members(&self) -> impl Iterator<Item = usize> {
        let sizes = self.sizes.iter().enumerate();
        sizes.flat_map(|(group, &size)| std::iter::repeat_n(group, size))
    }
}

/// Keys of notifications (protocol, 6.2): no two runs have one in common.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    text: String,
    prefix_len: usize,
}

impl Keys {
    pub(crate) fn new() -> Self {
        let text = format!("load-{:x}-{:x}-", std::process::id(), now_ns());
        let prefix_len = text.len();
        Self { text, prefix_len }
    }

    /// The key of the `number`th notification.
    pub(crate) fn next(&mut self, number: u64) -> &[u8] {
        self.text.truncate(self.prefix_len);
        // Writing to a string can't fail.
        let _ = write!(self.text, "{number}");
        self.text.as_bytes()
    }
}

/// When to send, and when to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extent {
    Seconds { warmup_ns: u64, measured_ns: u64 },
    Notifications { warmup: u64, measured: u64 },
}

impl Extent {
    pub(crate) fn new(options: &Options) -> Self {
        match options.notifications {
            Some(measured) => Self::Notifications {
                warmup: measured / 10,
                measured,
            },
            None => Self::Seconds {
                warmup_ns: (options.warmup * 1e9) as u64,
                measured_ns: (options.seconds * 1e9) as u64,
            },
        }
    }

    /// Whether warming up is over.
    pub(crate) const fn is_warm(self, elapsed_ns: u64, finished: u64) -> bool {
        match self {
            Self::Seconds { warmup_ns, .. } => elapsed_ns >= warmup_ns,
            Self::Notifications { warmup, .. } => finished >= warmup,
        }
    }

    /// Whether the measurement is over; both count from its start.
    pub(crate) const fn is_measured(self, elapsed_ns: u64, finished: u64) -> bool {
        match self {
            Self::Seconds { measured_ns, .. } => elapsed_ns >= measured_ns,
            Self::Notifications { measured, .. } => finished >= measured,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options;

    fn plan(command: Command, text: &str) -> Result<Plan, String> {
        let arguments = text.split_whitespace().map(Into::into).collect();
        let options = options::read(command, arguments)
            .expect("valid")
            .expect("no help");
        Plan::new(command, &options)
    }

    #[test]
    fn subscribers_are_spread_over_channels() {
        let plan = plan(
            Command::Fanout,
            "--subscribers 8 --channels 3 --bystanders 2",
        )
        .expect("possible");
        assert_eq!(plan.sizes, [3, 3, 2, 2]);
        assert_eq!(plan.members(), 10);
        for number in 0..10 {
            let (group, value) = plan.next(number);
            assert!(plan.values_of(group).any(|own| own == value));
            assert!(plan.values_of(3).all(|own| own != value));
        }
    }

    #[test]
    fn numbered_subscribers_are_spread_over_all() {
        let plan = plan(Command::Fanout, "--subscribers 8 --channels 2").expect("possible");
        let numbered = |count| -> Vec<bool> {
            (0..8)
                .map(|member| plan.is_numbered(member, count))
                .collect()
        };
        assert_eq!(numbered(0), [false; 8]);
        assert_eq!(
            numbered(4),
            [false, true, false, true, false, true, false, true]
        );
        assert_eq!(
            (numbered(8), numbered(usize::MAX)),
            (vec![true; 8], vec![true; 8])
        );
    }

    #[test]
    fn keys_differ() {
        let (mut one, mut other) = (Keys::new(), Keys::new());
        let keys = [one.next(0).to_vec(), one.next(1).to_vec()];
        assert!(keys[0] != keys[1] && keys[0] != other.next(0));
    }

    #[test]
    fn every_value_of_match_has_its_recipients_and_its_turn() {
        let text = "--connections 8 --recipients 2 --subscriptions 1000";
        let plan = plan(Command::Match, text).expect("possible");
        assert_eq!(plan.sizes, [2, 2, 2, 2, 0]);
        assert_eq!(
            (0..4)
                .map(|group| plan.values_of(group).count())
                .sum::<usize>(),
            1000
        );
        let mut seen = vec![false; 1000];
        (0..1000).for_each(|number| seen[plan.next(number).1 as usize] = true);
        assert!(seen.iter().all(|&seen| seen));
        assert!(self::plan(Command::Match, "--connections 3").is_err());
    }
}
