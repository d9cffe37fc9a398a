//! The program run to its end: what it prints, and its exit status.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Runs of the program in a directory of their own, without any variable of ours.
pub(crate) struct Run {
    pub(crate) directory: tempfile::TempDir,
}

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    pub(crate) fn new() -> Run {
        Run {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        self.run_with(arguments, &[], "")
    }

    pub(crate) fn run_with(
        &self,
        arguments: &[&str],
        variables: &[(&str, &str)],
        input: &str,
    ) -> Outcome {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringpost"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RINGPOST_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(arguments)
            .envs(variables.iter().copied())
            .current_dir(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that fails early does not read.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Outcome {
            status: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Outcome {
    /// Exit status 0 and nothing on standard error; gives standard output.
    #[track_caller]
    pub(crate) fn fine(self) -> String {
        assert_eq!((self.status, self.err.as_str()), (0, ""));
        self.out
    }

    /// This exit status, nothing on standard output, and one line on standard error that begins
    /// so; gives the line.
    #[track_caller]
    pub(crate) fn fails(self, status: i32, name: &str, beginning: &str) -> String {
        assert_eq!(self.status, status, "{name}: {}", self.err);
        assert_eq!(self.out, "", "{name}");
        assert_eq!(self.err.matches('\n').count(), 1, "{name}: {}", self.err);
        assert!(self.err.ends_with('\n'), "{name}: {}", self.err);
        let line = self.err.trim_end().to_owned();
        assert!(
            line.starts_with(&format!("ringpost: {beginning}")),
            "{name}: {line}"
        );
        line
    }
}

#[track_caller]
pub(crate) fn assert_lines(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(
            text.lines().any(|other| other == *line),
            "{line:?} is not in:\n{text}"
        );
    }
}
