//! A server under attack, with a crowd that must not notice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::{Client, Crowd, Served, Server, raise_descriptor_limit};

const MIB: usize = 1024 * 1024;

/// What the crowd may have to wait while two processors are busy with other tests too. A server
/// that waits for somebody takes longer.
pub(crate) const DELIVERY_MAX: Duration = Duration::from_secs(10);

/// What the allocator may keep of what the attackers took, or a quarter of their budget.
const KEPT_BYTES_MAX: usize = 8 * MIB;

/// A server under attack, and what it had before.
pub(crate) struct Scene {
    pub(crate) server: Server,
    descriptors: usize,
    pub(crate) memory_bytes: usize,
}

impl Scene {
    fn new(flags: &[&str]) -> (Self, Crowd) {
        raise_descriptor_limit();
        let server = Server::with(flags);
        let crowd = Crowd::gather(&server);
        let scene = Self {
            descriptors: server.program().descriptors(),
            memory_bytes: server.program().memory_bytes(),
            server,
        };
        (scene, crowd)
    }

    /// Waits until the server has forgotten the attackers, whether they have left or not.
    pub(crate) fn wait_until_gone(&self) {
        // This client is accepted behind all of them.
        Client::connect(&self.server).leave();
        self.server.wait_for_descriptors(self.descriptors);
    }

    /// The most memory over the baseline until `is_over`.
    fn peak_bytes(&self, is_over: &AtomicBool) -> usize {
        let mut peak_bytes = 0;
        while !is_over.load(Ordering::Relaxed) {
            peak_bytes = peak_bytes.max(self.server.program().memory_bytes());
            thread::sleep(Duration::from_millis(5));
        }
        peak_bytes.saturating_sub(self.memory_bytes)
    }
}

/// Sets its flag when it is dropped, by a panic too.
pub(crate) struct Ending<'a>(pub(crate) &'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Lets `attack`, which says what it did, loose on a server with `flags` that may take
/// `memory_bytes_max` more for it.
pub(crate) fn withstand(
    name: &str,
    flags: &[&str],
    memory_bytes_max: usize,
    attack: impl FnOnce(&Scene) -> String,
) -> Served {
    let (scene, mut crowd) = Scene::new(flags);
    let is_over = AtomicBool::new(false);
    let (load, served, peak_bytes) = thread::scope(|scope| {
        let ending = Ending(&is_over);
        let crowd = scope.spawn(|| crowd.publish_until(&is_over));
        let peak = scope.spawn(|| scene.peak_bytes(&is_over));
        let load = attack(&scene);
        scene.wait_until_gone();
        let kept_bytes_max = KEPT_BYTES_MAX.max(memory_bytes_max / 4);
        scene
            .server
            .wait_for_memory(scene.memory_bytes + kept_bytes_max);
        drop(ending);
        let served = crowd.join().expect("the crowd was served");
        (load, served, peak.join().expect("memory can be read"))
    });
    println!(
        "| {name} | {load} | {:.1} MiB | {:.1} ms | {:.0} ms | 0 of {} |",
        peak_bytes as f64 / MIB as f64,
        served.median.as_secs_f64() * 1000.0,
        served.slowest.as_secs_f64() * 1000.0,
        served.published
    );
    assert!(
        peak_bytes <= memory_bytes_max,
        "{peak_bytes} bytes of memory"
    );
    assert!(served.slowest <= DELIVERY_MAX, "{:?}", served.slowest);
    served
}
