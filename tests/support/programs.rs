//! Programs that nobody here wrote: found, run with a deadline, and talked to line by line.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::server::Log;

/// A command for an installed program. A missing one fails the test: `tests/run` installs them all,
/// so that nothing is skipped for want of one.
pub(crate) fn program(name: &str) -> Command {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-programs");
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .chain([unpacked.join("usr/sbin")])
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file());
    let Some(found) = found else {
        panic!("{name} is not installed: run tests/run")
    };
    let mut command = Command::new(&found);
    if found.starts_with(&unpacked) {
        // Taken out of its package without installing that: its libraries lie beside it.
        command.env("LD_LIBRARY_PATH", unpacked.join("usr/lib/postfix"));
    }
    command
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// Everything it printed.
    pub(crate) fn text(&self) -> String {
        format!("{}{}", self.out, self.err)
    }

    /// Expects exit status 0.
    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }
}

/// A program under way.
pub(crate) struct Running {
    child: Child,
    input: Option<ChildStdin>,
    pub(crate) out: Arc<Log>,
    pub(crate) err: Arc<Log>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = Log::follow(child.stdout.take().unwrap());
        let err = Log::follow(child.stderr.take().unwrap());
        Self {
            input: child.stdin.take(),
            child,
            out,
            err,
        }
    }

    /// Writes to its standard input. It may have ended already: then its exit status tells.
    pub(crate) fn write(&mut self, octets: impl AsRef<[u8]>) {
        if let Some(input) = &mut self.input {
            let _ = input
                .write_all(octets.as_ref())
                .and_then(|()| input.flush());
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(crate) fn close_input(&mut self) {
        self.input = None;
    }

    /// Waits for it to end, its standard input left as it is.
    pub(crate) fn wait(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code();
            }
            if Instant::now() > deadline {
                panic!("hangs: {:#?} {:#?}", self.out.lines(), self.err.lines());
            }
            thread::sleep(Duration::from_millis(5));
        };
        let text = |log: &Log| {
            log.to_end()
                .iter()
                .map(|line| format!("{line}\n"))
                .collect()
        };
        Ended {
            code,
            out: text(&self.out),
            err: text(&self.err),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program with this standard input, closed behind it.
pub(crate) fn run(command: &mut Command, input: impl AsRef<[u8]>) -> Ended {
    let mut running = Running::start(command);
    running.write(input);
    running.close_input();
    running.wait()
}
