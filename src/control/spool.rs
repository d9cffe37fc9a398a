//! Has the spool recovered before the shards start, and tells how it looks.
//!
//! A directory of a shard that is no more, because `--shards` was lowered, is adopted: its log goes on, on one of
//! the shards that are. An empty one is removed.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::config::Config;
use crate::deliver::{Durability, HopsPlan, QueueMeters, QueuePlan};
use crate::ring::{self, RingError, RingSettings};
use crate::smtp::data::Budget;
use crate::spool::disk::on_ring::OnRing;
use crate::spool::disk::{Disk, WriteSync};
use crate::spool::{
    DiskError, LogDirectory, LogSettings, Meters, Purpose, RecoveredLog, RecoveryError, Space,
    recover, spool_directory,
};

use super::metrics::{Kind, Metrics};

/// The spool of the whole process.
pub(super) struct Spool {
    /// What each shard starts with.
    pub(super) plans: Vec<QueuePlan>,
    durability: Durability,
    meters: Arc<Meters>,
    space: Arc<Space>,
    queue_meters: Arc<QueueMeters>,
}

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// No ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// What lies there cannot be read.
    #[error("--data-dir: {0}")]
    Recovery(#[from] RecoveryError),
}

impl Spool {
    /// Reads what the last stop has left.
    pub(super) fn recover(
        config: &Config,
        budget: &Arc<Budget>,
        hops: &HopsPlan,
    ) -> Result<Spool, SpoolError> {
        let started = Instant::now();
        let settings = RingSettings {
            entries: RECOVERY_RING_ENTRIES,
            sqpoll: false,
        };
        let shards = config.shards.get();
        let directory = spool_directory(&config.data_dir);
        let logs = ring::run(settings, recover_all(&directory, shards))??;
        let messages: usize = logs.iter().flatten().map(|log| log.messages.len()).sum();
        for damage in logs.iter().flatten().flat_map(|log| &log.damages) {
            tracing::error!(
                path = %damage.path.display(),
                from = damage.place.start,
                to = damage.place.end,
                queue_id = damage.id.map(tracing::field::display),
                "the spool is damaged, what is left was set aside"
            );
        }
        tracing::info!(
            messages,
            seconds = started.elapsed().as_secs_f64(),
            "spool recovered"
        );
        let meters = Arc::<Meters>::default();
        let queue_meters = Arc::new(QueueMeters::new(config.queue_messages_max));
        let space = Space::new(config.spool_octets_max);
        let log_settings = LogSettings {
            segment_octets: config.segment_octets,
            sync: match config.durability {
                Durability::Disk | Durability::NextHop => WriteSync::Yes,
                Durability::None => WriteSync::No,
            },
            space: Arc::clone(&space),
            meters: Arc::clone(&meters),
        };
        let plans = logs
            .into_iter()
            .enumerate()
            .map(|(shard, logs)| QueuePlan {
                shard,
                logs,
                log_settings: log_settings.clone(),
                budget: Arc::clone(budget),
                meters: Arc::clone(&queue_meters),
                hops: hops.clone(),
            })
            .collect();
        Ok(Spool {
            plans,
            durability: config.durability,
            meters,
            space,
            queue_meters,
        })
    }

    /// Has `metrics` tell of the spool and the queues.
    pub(super) fn watch(&self, metrics: &Metrics) {
        metrics.tell(
            "ringpost_spool",
            "What 250 to the end of data promises.",
            ("durability", self.durability.label()),
        );
        let meters = |read: fn(&Meters) -> u64| {
            let meters = Arc::clone(&self.meters);
            move || read(&meters)
        };
        let queues = |read: fn(&QueueMeters) -> u64| {
            let meters = Arc::clone(&self.queue_meters);
            move || read(&meters)
        };
        let space = |read: fn(&Space) -> u64| {
            let space = Arc::clone(&self.space);
            move || read(&space)
        };
        for (name, help, read) in [
            (
                "ringpost_spool_batches",
                "Batches written to the spool's log.",
                (|meters| meters.batches().get()) as fn(&Meters) -> u64,
            ),
            (
                "ringpost_spool_messages",
                "Messages committed to the spool.",
                |meters| meters.messages().get(),
            ),
            (
                "ringpost_spool_bytes",
                "Octets written to the spool.",
                |meters| meters.octets().get(),
            ),
            ("ringpost_spool_syncs", "Syncs of the spool.", |meters| {
                meters.syncs().get()
            }),
            (
                "ringpost_spool_write_failures",
                "Batches that could not be written.",
                |meters| meters.failures().get(),
            ),
            (
                "ringpost_spool_moved_messages",
                "Messages moved to free a segment.",
                |meters| meters.compacted().get(),
            ),
        ] {
            metrics.watch(Kind::Counter, name, help, meters(read));
        }
        for (name, help, read) in [
            (
                "ringpost_spool_disk_bytes",
                "Octets that the spool takes on disk now.",
                Space::taken as fn(&Space) -> u64,
            ),
            (
                "ringpost_spool_disk_max_bytes",
                "Octets that the spool may take on disk.",
                Space::octets_max,
            ),
        ] {
            metrics.watch(Kind::Gauge, name, help, space(read));
        }
        for (kind, name, help, read) in [
            (
                Kind::Gauge,
                "ringpost_queue_messages",
                "Messages in the queue now.",
                QueueMeters::messages as fn(&QueueMeters) -> u64,
            ),
            (
                Kind::Gauge,
                "ringpost_queue_max_messages",
                "Messages that the queue may hold.",
                QueueMeters::messages_max,
            ),
            (
                Kind::Gauge,
                "ringpost_queue_attempts_under_way",
                "Delivery attempts under way now.",
                QueueMeters::attempts_under_way,
            ),
            (
                Kind::Counter,
                "ringpost_queue_recipients_delivered",
                "Recipients delivered to.",
                QueueMeters::delivered,
            ),
            (
                Kind::Counter,
                "ringpost_queue_recipients_deferred",
                "Attempts for a recipient that failed, to be repeated.",
                QueueMeters::deferred,
            ),
            (
                Kind::Counter,
                "ringpost_queue_recipients_bounced",
                "Recipients given up.",
                QueueMeters::failed,
            ),
        ] {
            metrics.watch(kind, name, help, queues(read));
        }
    }
}

/// The logs of each shard: its own first, then those that it adopts.
async fn recover_all(
    directory: &Path,
    shards: usize,
) -> Result<Vec<Vec<RecoveredLog>>, RecoveryError> {
    let mut logs = Vec::with_capacity(shards);
    for shard in 0..shards {
        let own = LogDirectory::of_shard(directory, shard);
        logs.push(vec![recover(&OnRing, own, Purpose::GoOn).await?]);
    }
    let names = OnRing.list(directory).await;
    let names = names.map_err(DiskError::of("list", directory))?;
    let mut others: Vec<usize> = names
        .iter()
        .filter_map(|name| LogDirectory::shard_of(name))
        .filter(|shard| *shard >= shards)
        .collect();
    others.sort_unstable();
    for shard in others {
        let other = LogDirectory::of_shard(directory, shard);
        let log = recover(&OnRing, other, Purpose::GoOn).await?;
        if log.messages.is_empty() && log.damages.is_empty() {
            log.remove(&OnRing).await?;
            continue;
        }
        let messages = log.messages.len();
        let by = shard % shards;
        tracing::warn!(
            shard,
            by,
            messages,
            "log adopted of a shard that is no more"
        );
        if let Some(logs) = logs.get_mut(by) {
            logs.push(log);
        }
    }
    Ok(logs)
}

/// Recovery does one thing after the other.
const RECOVERY_RING_ENTRIES: u32 = 8;
