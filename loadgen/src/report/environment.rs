//! Under which circumstances something is measured: found out where it runs.

use std::fs;
use std::thread;

use jiff::Timestamp;

use super::Environment;

impl Environment {
    /// Of this machine, now. `command` is the command line, `server` what is measured, `load` with what.
    pub fn read(
        command: impl Into<String>,
        server: impl Into<String>,
        load: impl Into<String>,
    ) -> Environment {
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy();
        Environment {
            date: date(Timestamp::now()),
            kernel: format!("{} {release}", uname.sysname().to_string_lossy()),
            processor: fs::read_to_string("/proc/cpuinfo")
                .ok()
                .and_then(|cpuinfo| processor(&cpuinfo))
                .unwrap_or_else(|| uname.machine().to_string_lossy().into_owned()),
            cores: thread::available_parallelism().map_or(1, usize::from),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            openssl: openssl::version::version().to_owned(),
            command: command.into(),
            server: server.into(),
            load: load.into(),
        }
    }
}

/// RFC 3339, in UTC, to the second.
fn date(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The name of the first processor. Not every architecture has a line for it.
fn processor(cpuinfo: &str) -> Option<String> {
    let names = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    names
        .filter(|(key, _)| matches!(key.trim(), "model name" | "Model" | "cpu model" | "cpu"))
        .map(|(_, name)| name.split_whitespace().collect::<Vec<_>>().join(" "))
        .find(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_has_a_name() {
        let x86 = "processor\t: 0\nmodel\t\t: 85\nmodel name\t: Fast  CPU @ 2.00GHz\nmodel name\t: other\n";
        assert_eq!(processor(x86).as_deref(), Some("Fast CPU @ 2.00GHz"));
        assert_eq!(processor("processor\t: 0\nBogoMIPS\t: 100.00\n"), None);
        assert_eq!(processor("model name\t:\n"), None);
    }

    #[test]
    fn this_machine_is_described() {
        let here = Environment::read("ringpost-loadgen run", "127.0.0.1:2525", "one message");
        let date: Timestamp = here.date.parse().unwrap();
        assert!(
            date.duration_until(Timestamp::now()).as_secs() < 60,
            "{here:?}"
        );
        assert!(
            here.date.ends_with('Z') && here.date.len() == 20,
            "{}",
            here.date
        );
        assert!(here.kernel.starts_with("Linux "), "{}", here.kernel);
        assert!(here.openssl.starts_with("OpenSSL "), "{}", here.openssl);
        assert!(here.cores >= 1 && !here.processor.is_empty());
        assert_eq!(here.server, "127.0.0.1:2525");
    }

    #[test]
    fn a_date_has_no_fraction() {
        let now = "2026-03-01T12:34:56.987Z".parse().unwrap();
        assert_eq!(date(now), "2026-03-01T12:34:56Z");
    }
}
