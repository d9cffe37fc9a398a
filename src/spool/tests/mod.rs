//! The log on a disk that crashes and fails by seed, through its public interface alone.

mod batching;
mod closing;
mod compaction;
mod crash_points;
mod formats;
mod healing;
mod life;
mod messages;
mod model;
mod rot;
mod versions;

use std::future::Future;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::disk::WriteSync;
use super::disk::simulated::Simulated;
use super::{Log, LogDirectory, LogSettings, Meters, Purpose, RecoveredLog, Space, recover};

/// Runs a future and the tasks that it starts, in an order that is the same each time, under a clock that goes
/// on only when all of them wait for it.
fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("takes no descriptor");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(NEVER, work).await.expect("it hangs")
    })
}

fn directory() -> LogDirectory {
    LogDirectory::of_shard(Path::new("/spool"), 0)
}

fn settings(segment_octets: u64) -> LogSettings {
    LogSettings {
        segment_octets,
        sync: WriteSync::Yes,
        space: Space::new(u64::MAX),
        meters: Arc::new(Meters::default()),
    }
}

/// A log that runs.
struct Running {
    log: Log<Simulated>,
    run: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(disk: &Simulated, settings: &LogSettings) -> (Running, RecoveredLog) {
        let recovered = recover(disk, directory(), Purpose::GoOn).await.unwrap();
        let look = recover(disk, directory(), Purpose::Look).await.unwrap();
        let running = Running::open(disk, recovered, settings).await;
        (running, look)
    }

    async fn open(disk: &Simulated, recovered: RecoveredLog, settings: &LogSettings) -> Running {
        let log = Log::open(disk.clone(), recovered, settings.clone());
        let log = log.await.unwrap();
        let run = tokio::task::spawn_local(log.clone().run());
        Running { log, run }
    }

    async fn close(self) {
        self.log.close();
        self.run.await.unwrap();
    }
}

/// Octets of the files that the log counts: segments, and those of large messages.
fn octets_on_disk(disk: &Simulated) -> u64 {
    let mut octets = 0;
    for directory in [directory().path().to_path_buf(), directory().large()] {
        for name in disk.names(&directory).unwrap() {
            let path = directory.join(name);
            octets += disk.contents(&path).map_or(0, |octets| octets.len() as u64);
        }
    }
    octets
}

/// So much time passes only if nothing else does.
const NEVER: Duration = Duration::from_secs(1_000_000);

/// The smallest segments.
const SEGMENT_OCTETS: u64 = 64 * 1024;

fn shared<T>(value: T) -> Rc<std::cell::RefCell<T>> {
    Rc::new(std::cell::RefCell::new(value))
}
