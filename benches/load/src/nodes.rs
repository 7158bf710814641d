//! Several nodes of one server: at which of them each connection is, and so how many recipients a publisher there is
//! told. The system knows it, even where all have one address and the kernel has chosen.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::getsockname;

use crate::connections::PATIENCE;
use crate::message::Recipients;
use crate::server::Server;

/// Where all are.
#[derive(Debug)]
pub(crate) struct Nodes {
    /// By group and node, how many members.
    members: Vec<Vec<u32>>,
    /// The node of each publisher that keeps its connection.
    publishers: Vec<usize>,
    /// All nodes have one address, so nobody knows where a new connection goes.
    is_shared: bool,
}

impl Nodes {
    /// `count` nodes. `members` are the group and the node of each, `publishers` the nodes of those that stay.
    pub(crate) fn new(
        count: usize,
        groups: usize,
        members: impl Iterator<Item = (usize, usize)>,
        publishers: Vec<usize>,
        is_shared: bool,
    ) -> Self {
        let mut table = vec![vec![0; count]; groups];
        members.for_each(|(group, node)| table[group][node] += 1);
        Self {
            members: table,
            publishers,
            is_shared,
        }
    }

    /// What the publisher of a notification for a group is to be told: recipients at its own node. `next` is the
    /// node that it connects to if it keeps no connection.
    pub(crate) fn recipients(
        &self,
        group: usize,
        publisher: Option<usize>,
        next: usize,
    ) -> Recipients {
        let members = &self.members[group];
        match publisher.and_then(|publisher| self.publishers.get(publisher)) {
            Some(&node) => Recipients::Exactly(members[node]),
            None if self.is_shared => Recipients::AtMost(members.iter().sum()),
            None => Recipients::Exactly(members[next]),
        }
    }

    /// How many members are at each node.
    pub(crate) fn members(&self) -> Vec<u32> {
        let mut sums = vec![0; self.members.first().map_or(0, Vec::len)];
        for group in &self.members {
            sums.iter_mut()
                .zip(group)
                .for_each(|(sum, count)| *sum += count);
        }
        sums
    }
}

/// The node of each connection, as soon as all have been accepted.
pub(crate) fn find(servers: &[&Server], sockets: &[OwnedFd]) -> Result<Vec<usize>, String> {
    let name = |socket| {
        let address = getsockname(socket).map_err(|error| error.to_string())?;
        let address = SocketAddrV4::try_from(address).map_err(|error| error.to_string())?;
        Ok(shown(address))
    };
    let names: Vec<_> = sockets.iter().map(name).collect::<Result<_, String>>()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let nodes = nodes_by_peer(servers)?;
        let found = names.iter().map(|name| nodes.get(name).copied());
        if let Some(found) = found.collect() {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err("no node has accepted some of the connections".to_owned());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Which node holds the socket that a peer is connected to, by the peer's address.
fn nodes_by_peer(servers: &[&Server]) -> Result<HashMap<String, usize>, String> {
    let mut nodes = HashMap::new();
    for (node, server) in servers.iter().enumerate() {
        let path = format!("/proc/{}/fd", server.pid);
        let entries = fs::read_dir(&path).map_err(|error| format!("{path}: {error}"))?;
        // Descriptors come and go meanwhile.
        let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        nodes.extend(links.map(|link| (link.to_string_lossy().into_owned(), node)));
    }
    let table = "/proc/net/tcp";
    let table = fs::read_to_string(table).map_err(|error| format!("{table}: {error}"))?;
    let row = |line: &str| {
        // sl local_address rem_address st queues tr retrnsmt uid timeout inode
        let fields: Vec<_> = line.split_whitespace().collect();
        let node = nodes.get(&format!("socket:[{}]", fields.get(9)?))?;
        Some(((*fields.get(2)?).to_owned(), *node))
    };
    Ok(table.lines().filter_map(row).collect())
}

/// An address as the kernel shows it.
pub(crate) fn shown(address: SocketAddrV4) -> String {
    let ip = u32::from_ne_bytes(address.ip().octets());
    format!("{ip:08X}:{:04X}", address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publisher_is_told_of_those_at_its_node() {
        let members = [(0, 0), (0, 1), (0, 1), (1, 0)];
        let nodes = |is_shared| Nodes::new(2, 3, members.into_iter(), vec![1, 0], is_shared);
        for (is_shared, group, publisher, next, expected) in [
            (false, 0, Some(0), 0, Recipients::Exactly(2)),
            (true, 0, Some(1), 1, Recipients::Exactly(1)),
            (false, 1, Some(0), 0, Recipients::Exactly(0)),
            (false, 0, None, 1, Recipients::Exactly(2)),
            (true, 0, None, 1, Recipients::AtMost(3)),
            (true, 2, None, 0, Recipients::AtMost(0)),
        ] {
            let told = nodes(is_shared).recipients(group, publisher, next);
            assert_eq!(told, expected, "{is_shared} {group} {publisher:?} {next}");
        }
        assert_eq!(nodes(false).members(), [2, 2]);
    }
}
