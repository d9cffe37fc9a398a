//! Ends a started server when the load generator is killed and cannot do so itself.
//!
//! The kernel would send a process a signal when its parent dies, but the process has to ask for that itself between
//! fork and exec, and running code there takes `unsafe`. So a shell waits at a pipe whose other end only the load
//! generator holds: the kernel closes that end whatever the load generator dies of, and the shell kills the server's
//! process group. It costs a sleeping process, and reaches the server's children too, as the signal would not.
//!
//! Invariants:
//! - A guard that is dropped kills nobody, and must be dropped before the server's main process is waited for: from
//!   then on the number of the process group may be another's.
//!
//! Not promised: a load generator that is killed between starting the server and its guard leaves the server behind.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Pid;

#[derive(Debug)]
pub(super) struct Guard(Child);

impl Guard {
    /// Over this process group, and this directory, which goes with it.
    pub(super) fn over(group: Pid, directory: Option<&Path>) -> io::Result<Guard> {
        Command::new("/bin/sh")
            .args(["-c", SCRIPT, "ringpost-loadgen-guard"])
            .arg(group.as_raw_pid().to_string())
            .args(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Apart from the terminal's group, or Ctrl-C would end it before its time.
            .process_group(0)
            .spawn()
            .map(Guard)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Before its pipe is closed, which `wait` does. Both can fail only if it ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Nothing is ever written: `read` ends when the pipe does.
/// What was killed may still make a file while the directory is removed, so that is tried again.
const SCRIPT: &str = r#"read -r end
kill -s KILL -- "-$1"
[ -z "$2" ] || rm -rf -- "$2" || { sleep 1; rm -rf -- "$2"; }"#;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn sleeper() -> (Child, Pid) {
        let child = Command::new("/bin/sleep")
            .arg("90")
            .process_group(0)
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        (child, pid)
    }

    #[test]
    fn the_group_dies_with_the_pipe() {
        let (mut child, group) = sleeper();
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("it's $HOME");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("file"), "").unwrap();
        let mut guard = Guard::over(group, Some(&folder)).unwrap();
        drop(guard.0.stdin.take());
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert_eq!(guard.0.wait().unwrap().code(), Some(0));
        assert!(!folder.exists());
        assert!(directory.path().exists());
    }

    #[test]
    fn without_a_directory_nothing_is_removed() {
        let (mut child, group) = sleeper();
        let mut guard = Guard::over(group, None).unwrap();
        drop(guard.0.stdin.take());
        assert_eq!(guard.0.wait().unwrap().code(), Some(0));
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn a_guard_that_is_dropped_kills_nobody() {
        let (mut child, group) = sleeper();
        let directory = tempfile::tempdir().unwrap();
        let guard = Guard::over(group, Some(directory.path())).unwrap();
        // It has ended when `drop` returns, so nothing can come later.
        drop(guard);
        assert_eq!(child.try_wait().unwrap(), None);
        assert!(directory.path().exists());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
