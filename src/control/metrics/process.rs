//! What operators expect to know of any process, under the names that Prometheus gives them.

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use super::exposition::Text;
use crate::control::privileges;

/// This process.
#[derive(Debug)]
pub(super) struct Process {
    /// Seconds since 1970.
    started: f64,
}

impl Process {
    pub(super) fn started_now() -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            started: since_epoch.as_secs_f64(),
        }
    }

    /// What cannot be read (no /proc, say) is left out: no number is better than a wrong one.
    pub(super) fn encode(&self, text: &mut Text<'_>) -> fmt::Result {
        text.float_gauge(
            "process_start_time_seconds",
            "When the process started, in seconds since 1970.",
            self.started,
        )?;
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            if let Some(octets) = octets_of(&status, "VmRSS:") {
                text.gauge("process_resident_memory_bytes", "Memory in RAM.", octets)?;
            }
            if let Some(octets) = octets_of(&status, "VmSize:") {
                text.gauge("process_virtual_memory_bytes", "Memory mapped.", octets)?;
            }
        }
        if let Some(seconds) = fs::read_to_string("/proc/self/stat")
            .ok()
            .as_deref()
            .and_then(cpu_seconds)
        {
            text.float_counter(
                "process_cpu_seconds",
                "CPU time, in user and kernel.",
                seconds,
            )?;
        }
        if let Ok(descriptors) = privileges::descriptors_open() {
            text.gauge("process_open_fds", "Descriptors open.", descriptors)?;
        }
        text.gauge(
            "process_max_fds",
            "Descriptors there can be.",
            privileges::descriptors_max(),
        )
    }
}

/// The value of a line such as `VmRSS:     1234 kB` of /proc/self/status.
fn octets_of(status: &str, key: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Fields 14 and 15 of /proc/self/stat. The name of the program (field 2) stands in brackets, and
/// may hold blanks and brackets.
#[expect(
    clippy::cast_precision_loss,
    reason = "2^53 ticks are 2.8 million years"
)]
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    // Field 3 is the first behind the bracket.
    let mut fields = fields.split_ascii_whitespace().skip(14 - 3);
    let user: u64 = fields.next()?.parse().ok()?;
    let kernel: u64 = fields.next()?.parse().ok()?;
    Some(user.checked_add(kernel)? as f64 / USER_HZ)
}

/// Ticks a second in /proc: part of the kernel's interface, and 100 wherever io_uring is.
const USER_HZ: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines() {
        let status = "Name:\tringpost\nVmSize:\t  20000 kB\nVmRSS:\t    512 kB\nVmBad:\tx kB\n";
        assert_eq!(octets_of(status, "VmRSS:"), Some(512 * 1024));
        assert_eq!(octets_of(status, "VmSize:"), Some(20000 * 1024));
        assert_eq!(octets_of(status, "VmBad:"), None);
        assert_eq!(octets_of(status, "VmNone:"), None);
    }

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a) R 1 (b)) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 0 0 20 0 3 0 99 1 1";
        assert_eq!(cpu_seconds(stat), Some(1.75));
        assert_eq!(cpu_seconds("7 (cut"), None);
        assert_eq!(cpu_seconds("7 (cut) S 1 2"), None);
    }
}
