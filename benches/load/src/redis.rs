//! A Redis of the run's own: on a Unix socket, without persistence unless it is asked for, gone at the end.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::system;

/// How long it may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A Redis that runs.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) pid: u32,
    /// Where servers find it.
    pub(crate) url: String,
    child: Child,
    folder: PathBuf,
}

impl Redis {
    /// Starts one on a core, with more options behind ours. `after` is where this thread goes back to.
    pub(crate) fn start(options: &str, core: usize, after: usize) -> Result<Self, String> {
        let folder = std::env::temp_dir().join(format!("load-redis-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let socket = folder.join("redis.sock");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no"]);
        command.arg("--unixsocket").arg(&socket);
        command.arg("--dir").arg(&folder);
        command.args(options.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        system::pin_to(core).map_err(|error| error.to_string())?;
        let child = command.spawn();
        system::pin_to(after).map_err(|error| error.to_string())?;
        let child = child.map_err(|error| format!("cannot start redis-server: {error}"))?;
        let mut redis = Self {
            pid: child.id(),
            url: format!("redis+unix://{}", socket.display()),
            child,
            folder,
        };
        let deadline = Instant::now() + START_TIMEOUT;
        while let Err(error) = UnixStream::connect(&socket) {
            if let Ok(Some(status)) = redis.child.try_wait() {
                return Err(format!("redis-server {options} ended: {status}"));
            }
            if Instant::now() > deadline {
                return Err(format!("redis-server does not listen: {error}"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Nothing that it has is of use to anybody.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
