//! What the floor does wrong on demand, to show that the generator would notice.

/// One fault, at one notification.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    kind: Kind,
    /// The number of the notification, from 0.
    pub(crate) at: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Lose,
    Double,
    Swap,
    Damage,
}

impl Fault {
    /// `lose@500`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let expected =
            || format!("--fault {text:?}: expected lose, double, swap or damage, as lose@500");
        let (word, number) = text.split_once('@').ok_or_else(expected)?;
        let kind = match word {
            "lose" => Kind::Lose,
            "double" => Kind::Double,
            "swap" => Kind::Swap,
            "damage" => Kind::Damage,
            _ => return Err(expected()),
        };
        let at = number.parse().map_err(|_| expected())?;
        Ok(Self { kind, at })
    }

    /// What a recipient gets instead of the frames, if the fault is at `index`. `None` if it
    /// can't be done to so few.
    pub(super) fn apply(self, frames: &[&[u8]], index: usize) -> Option<Vec<u8>> {
        let mut frames: Vec<Vec<u8>> = frames.iter().map(|frame| frame.to_vec()).collect();
        match self.kind {
            Kind::Lose => {
                frames.remove(index);
            }
            Kind::Double => frames.insert(index, frames[index].clone()),
            Kind::Swap if frames.len() < 2 => return None,
            Kind::Swap => frames.swap(index, if index == 0 { 1 } else { index - 1 }),
            Kind::Damage => {
                let middle = frames[index].len() / 2;
                frames[index][middle] ^= 1;
            }
        }
        Some(frames.concat())
    }
}

/// What goes wrong at each handover.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HandoverFault {
    /// It doesn't take place.
    Refuse,
    /// A connection isn't handed over.
    Close,
    /// What a connection has subscribed to isn't.
    Forget,
    /// Two connections are taken for each other.
    Swap,
    /// A connection is told something.
    Say,
}

impl HandoverFault {
    /// `close`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "close" => Ok(Self::Close),
            "forget" => Ok(Self::Forget),
            "swap" => Ok(Self::Swap),
            "say" => Ok(Self::Say),
            _ => Err(format!(
                "--handover-fault {text:?}: expected refuse, close, forget, swap or say"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_what_they_are_called() {
        let frames = [&b"one"[..], b"two", b"six"];
        let apply = |text: &str, index| {
            let fault = Fault::parse(text).expect("valid");
            assert_eq!(fault.at, 7);
            fault.apply(&frames, index).expect("enough frames")
        };
        assert_eq!(apply("lose@7", 1), b"onesix");
        assert_eq!(apply("double@7", 1), b"onetwotwosix");
        assert_eq!(apply("swap@7", 0), b"twoonesix");
        assert_eq!(apply("swap@7", 2), b"onesixtwo");
        assert_eq!(apply("damage@7", 0), b"ooetwosix");
        let swap = Fault::parse("swap@0").expect("valid");
        assert_eq!(swap.apply(&frames[..1], 0), None);
        assert!(Fault::parse("lose").is_err() && Fault::parse("drop@1").is_err());
    }
}
