//! The table alone, with the time moved by hand.

use std::net::Ipv4Addr;

use super::*;

const START: Timestamp = Timestamp::from_micros(1_000_000_000);

fn table(connections_max: Option<u32>, upgrades_per_second: Option<f64>) -> Addresses {
    let limits = AddressLimits {
        connections_max,
        upgrades_per_second,
    };
    Addresses::new(limits, None)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect(text)
}

fn numbered(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(number).into()
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn too_fast(retry_after: Duration) -> Result<(), Refused> {
    Err(Refused::TooManyUpgrades { retry_after })
}

#[test]
fn connections_at_max_and_one_more() {
    let mut table = table(Some(2), None);
    let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
    assert_eq!(table.admit(one, START), Ok(()));
    assert_eq!(table.admit(one, START), Ok(()));
    for _ in 0..3 {
        assert_eq!(table.admit(one, START), Err(Refused::TooManyConnections));
    }
    assert_eq!(table.admit(other, START), Ok(()));
    table.leave(one);
    assert_eq!(table.admit(one, START), Ok(()));
    assert_eq!(table.admit(one, START), Err(Refused::TooManyConnections));
    for address in [one, one, other] {
        table.leave(address);
    }
    assert!(table.is_empty());
    assert_eq!((table.entries.capacity(), table.idle.capacity()), (0, 0));
}

#[test]
fn without_limits_everybody_is_admitted() {
    let mut table = table(None, None);
    for _ in 0..1000 {
        assert_eq!(table.admit(ip("::1"), START), Ok(()));
    }
}

#[test]
fn a_64_prefix_counts_as_one_address() {
    let mut table = table(Some(1), None);
    for (address, is_new) in [
        ("2001:db8:0:1::1", true),
        ("2001:db8:0:1:ffff::1", false),
        ("2001:db8:0:2::1", true),
        ("192.0.2.1", true),
        ("::ffff:192.0.2.1", false),
        ("192.0.2.2", true),
    ] {
        let admitted = table.admit(ip(address), START);
        assert_eq!(admitted.is_ok(), is_new, "{address}");
    }
    table.leave(ip("2001:db8:0:1:2:3:4:5"));
    assert_eq!(table.admit(ip("2001:db8:0:1::1"), START), Ok(()));
}

#[test]
fn what_an_address_holds_at_max_and_one_more() {
    let holdings = |text_bytes, subscriptions, values| Holdings {
        text_bytes,
        subscriptions,
        values,
    };
    let none = Holdings::default();
    let share = holdings(10, 20, 30);
    let mut table = Addresses::new(AddressLimits::default(), Some(share));
    let (one, other) = (ip("2001:db8:0:1::1"), ip("2001:db8:0:2::1"));
    for address in [one, one, other] {
        assert_eq!(table.admit(address, START), Ok(()));
    }
    let first = holdings(4, 5, 6);
    table.exchange(one, none, first);
    assert!(table.has_room_for(one, none, holdings(6, 15, 24)));
    for more in [
        holdings(7, 15, 24),
        holdings(6, 16, 24),
        holdings(6, 15, 25),
    ] {
        assert!(!table.has_room_for(one, none, more));
        // The rest of its /64 has the same share, and others have theirs.
        assert!(!table.has_room_for(ip("2001:db8:0:1::2"), none, more));
        assert!(table.has_room_for(other, none, more));
    }
    table.exchange(one, none, holdings(6, 15, 24));
    // What a connection has makes room for as much.
    assert!(table.has_room_for(one, first, first));
    assert!(!table.has_room_for(one, first, holdings(5, 5, 6)));
    assert!(table.has_room_for(one, none, none));
    table.exchange(one, holdings(6, 15, 24), none);
    table.leave(one);
    assert!(table.has_room_for(one, none, holdings(6, 15, 24)));
    table.exchange(one, first, none);
    table.leave(one);
    assert!(table.has_room_for(one, none, share));
}

#[test]
fn an_entry_is_small() {
    assert_eq!(size_of::<(Prefix, Entry)>(), 40);
}

#[test]
fn upgrades_come_in_bursts_and_are_refilled() {
    let mut table = table(None, Some(2.0));
    let address = ip("192.0.2.1");
    for _ in 0..4 {
        assert_eq!(table.admit(address, START), Ok(()));
    }
    let half = Duration::from_millis(500);
    // Being refused costs nothing.
    for _ in 0..3 {
        assert_eq!(table.admit(address, START), too_fast(half));
    }
    let micro = Duration::from_micros(1);
    let almost = START + (half - micro);
    assert_eq!(table.admit(address, almost), too_fast(micro));
    assert_eq!(table.admit(ip("192.0.2.2"), almost), Ok(()));
    assert_eq!(table.admit(address, START + half), Ok(()));
    assert_eq!(table.admit(address, START + half), too_fast(half));
    // However long it was quiet, the burst is no larger.
    let later = START + seconds(3600);
    for _ in 0..4 {
        assert_eq!(table.admit(address, later), Ok(()));
    }
    assert_eq!(table.admit(address, later), too_fast(half));
    // A clock that seems to go back gives nothing.
    assert_eq!(table.admit(address, START), too_fast(half));
}

#[test]
fn leaving_gives_no_upgrade_back() {
    let mut table = table(Some(1), Some(0.5));
    let address = ip("192.0.2.1");
    assert_eq!(table.admit(address, START), Ok(()));
    // Too many connections are refused first, which costs nothing of the rate.
    assert_eq!(
        table.admit(address, START),
        Err(Refused::TooManyConnections)
    );
    table.leave(address);
    assert_eq!(table.admit(address, START), too_fast(seconds(2)));
    assert_eq!(table.admit(address, START + seconds(2)), Ok(()));
}

#[test]
fn rates_of_all_sizes() {
    for (rate, burst, retry_micros) in [
        (f64::MIN_POSITIVE, 1, 86_400_000_000),
        (1e-9, 1, 86_400_000_000),
        (0.1, 1, 10_000_000),
        (0.5, 1, 2_000_000),
        (0.6, 2, 1_666_667),
        (1.0, 2, 1_000_000),
        (1.1, 3, 909_091),
        (3.0, 6, 333_333),
        (7.0, 14, 142_857),
        (1000.0, 2000, 1000),
    ] {
        let mut table = table(None, Some(rate));
        for _ in 0..burst {
            assert_eq!(table.admit(ip("::1"), START), Ok(()), "{rate}");
        }
        let retry_after = Duration::from_micros(retry_micros);
        assert_eq!(table.admit(ip("::1"), START), too_fast(retry_after));
    }
    for rate in [1e6, 1e300, f64::INFINITY] {
        let bucket = Bucket::new(rate);
        assert_eq!(bucket.interval, Duration::from_micros(1));
        assert_eq!(bucket.whole, seconds(2));
    }
}

#[test]
#[should_panic(expected = "a rate of NaN")]
fn a_rate_is_more_than_zero() {
    let _ = table(None, Some(f64::NAN));
}

#[test]
fn an_idle_address_is_forgotten_once_its_bucket_is_full() {
    let mut table = table(None, Some(1.0));
    for number in 0..100 {
        assert_eq!(table.admit(numbered(number), START), Ok(()));
    }
    for number in 0..100 {
        table.leave(numbered(number));
    }
    assert_eq!(table.len(), 100);
    let stays = ip("::1");
    let now = START + seconds(1);
    // Each call forgets two and adds one at most.
    assert_eq!(table.admit(stays, now), Ok(()));
    assert_eq!(table.len(), 100 - SWEPT_MAX + 1);
    for number in 1000..1050 {
        let now = now + seconds(number);
        assert_eq!(table.admit(stays, now), Ok(()));
    }
    assert_eq!((table.len(), table.idle.len()), (1, 0));
    assert!(table.entries.capacity() < 10 && table.idle.capacity() == 0);
}

#[test]
fn an_address_that_comes_back_is_not_forgotten() {
    let mut table = table(Some(1), Some(1.0));
    let address = ip("192.0.2.1");
    for round in 0..10 {
        let now = START + seconds(10 * round);
        assert_eq!(table.admit(address, now), Ok(()));
        assert_eq!(table.admit(address, now), Err(Refused::TooManyConnections));
        table.leave(address);
        assert!(table.idle.len() <= 1);
    }
    assert_eq!(table.admit(address, START + seconds(100)), Ok(()));
    let now = START + seconds(1000);
    for _ in 0..3 {
        assert_eq!(table.admit(address, now), Err(Refused::TooManyConnections));
    }
    assert_eq!((table.len(), table.idle.len()), (1, 0));
}

#[test]
fn the_queue_has_an_address_once_and_lets_nobody_block_it() {
    let mut table = table(None, Some(1.0));
    let [back, gone, other] = [1, 2, 3].map(numbered);
    for address in [back, gone] {
        assert_eq!(table.admit(address, START), Ok(()));
    }
    for address in [back, gone] {
        table.leave(address);
    }
    assert_eq!(table.admit(back, START), Ok(()));
    table.leave(back);
    assert_eq!((table.len(), table.idle.len()), (2, 2));
    let full = START + seconds(1);
    assert_eq!(table.admit(back, full), Ok(()));
    // The first is connected again, and its bucket isn't full; the second one's is.
    assert_eq!(table.admit(other, full), Ok(()));
    assert_eq!((table.len(), table.idle.len()), (2, 0));
    // An address that left the queue joins it again.
    table.leave(back);
    assert_eq!(table.idle, [back.into()]);
    assert_eq!(table.admit(other, START + seconds(60)), Ok(()));
    assert_eq!((table.len(), table.idle.len()), (1, 0));
}

#[test]
fn many_addresses_take_no_more_than_their_room() {
    let mut table = table(None, Some(0.001));
    let busy = ip("::1");
    assert_eq!(table.admit(busy, START), Ok(()));
    let count = 2 * IDLE_MAX as u32;
    for number in 0..count {
        assert_eq!(table.admit(numbered(number), START), Ok(()));
        table.leave(numbered(number));
        assert!(table.len() <= IDLE_MAX + 1 && table.idle.len() <= IDLE_MAX);
    }
    assert_eq!(table.len(), IDLE_MAX + 1);
    // The stalest are gone; the others, and addresses with connections, are not.
    let kept = count - IDLE_MAX as u32;
    assert!(table.admit(numbered(kept), START).is_err());
    assert!(table.admit(busy, START).is_err());
    assert_eq!(table.admit(numbered(kept - 1), START), Ok(()));
}

/// A table of the same limits that is told what `table` knows, with the connections of `addresses`.
fn carried(table: &Addresses, addresses: &[IpAddr], now: Timestamp) -> Addresses {
    let mut carried = Addresses {
        entries: HashMap::new(),
        idle: VecDeque::new(),
        now: Timestamp::ZERO,
        ..*table
    };
    for idle in table.save() {
        let mut bytes = Vec::new();
        idle.save(&mut Members::new(&mut bytes));
        let fields = Fields::parse(&bytes).expect("members");
        assert_eq!(IdleAddress::restore(&fields), Ok(idle));
        carried.remember(idle, now);
    }
    for &address in addresses {
        let full_at = table.full_at(address);
        carried.carry(address, Holdings::default(), full_at, now);
    }
    carried.check_invariants();
    carried
}

#[test]
fn a_table_that_was_carried_admits_as_before() {
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..200 {
        let rate = [None, Some(0.5), Some(3.0)][random.usize(..3)];
        let mut table = table(Some(3), rate);
        let mut other = self::table(Some(3), rate);
        let mut connected = Vec::new();
        let mut now = START;
        for _ in 0..60 {
            now = now + Duration::from_millis(random.u64(..700));
            let address = [numbered(random.u32(..4)), ip("::")][random.usize(..2)];
            match random.u8(..4) {
                0 if !connected.is_empty() => {
                    let gone = connected.swap_remove(random.usize(..connected.len()));
                    table.leave(gone);
                    other.leave(gone);
                }
                1 => table = carried(&table, &connected, now),
                _ => {
                    let admitted = table.admit(address, now);
                    assert_eq!(admitted, other.admit(address, now));
                    connected.extend(admitted.ok().map(|()| address));
                }
            }
            table.check_invariants();
            other.check_invariants();
        }
        for address in connected {
            table.leave(address);
        }
        // Each call forgets some.
        for number in 0..20 {
            let _ = table.admit(ip("::9"), START + seconds(1000 * (number + 1)));
        }
        assert_eq!((table.len(), table.idle.len()), (1, 0));
    }
}

#[test]
fn what_is_remembered_is_bounded_and_in_order() {
    let mut table = table(None, Some(0.001));
    let count = IDLE_MAX as u32 + 10;
    for number in 0..count {
        let idle = IdleAddress {
            prefix: numbered(number).into(),
            full_at: START + seconds(1000),
        };
        table.remember(idle, START);
        // To be told twice is no harm.
        table.remember(idle, START);
    }
    table.check_invariants();
    assert_eq!((table.len(), table.idle.len()), (IDLE_MAX, IDLE_MAX));
    let first = table.save().next().map(|idle| idle.prefix);
    assert_eq!(first, Some(numbered(10).into()));
    assert_eq!(table.save().count(), IDLE_MAX);
    // What is connected isn't written as idle.
    table.carry(numbered(10), Holdings::default(), None, START);
    assert_eq!(table.save().count(), IDLE_MAX - 1);
    assert_eq!(table.full_at(numbered(10)), Some(START + seconds(1000)));
}

#[test]
fn another_rate_or_a_time_that_is_far_ahead_keeps_nobody_out_for_longer() {
    let idle = IdleAddress {
        prefix: numbered(1).into(),
        full_at: Timestamp::from_micros(u64::MAX),
    };
    let mut table = table(None, Some(1.0));
    table.remember(idle, START);
    table.carry(numbered(2), Holdings::default(), Some(idle.full_at), START);
    for address in [1, 2].map(numbered) {
        assert_eq!(table.admit(address, START), too_fast(seconds(1)));
    }
    for address in [1, 2].map(numbered) {
        assert_eq!(table.admit(address, START + seconds(1)), Ok(()));
    }
    let mut table = self::table(None, None);
    table.remember(idle, START);
    assert!(table.is_empty());
    table.carry(numbered(2), Holdings::default(), Some(idle.full_at), START);
    assert_eq!(table.full_at(numbered(2)), None);
}

#[test]
fn connections_that_were_carried_count_though_they_are_too_many_now() {
    let mut table = table(Some(1), None);
    let holdings = Holdings {
        text_bytes: 4,
        subscriptions: 5,
        values: 6,
    };
    let address = ip("2001:db8::1");
    for _ in 0..2 {
        table.carry(address, holdings, None, START);
    }
    assert_eq!(
        table.admit(address, START),
        Err(Refused::TooManyConnections)
    );
    for _ in 0..2 {
        table.exchange(address, holdings, Holdings::default());
        table.leave(address);
    }
    assert_eq!(table.admit(address, START), Ok(()));
    table.check_invariants();
}
