//! A disk that is full, read-only or in the way: a 4yz reply, nothing lost, and it heals.
//!
//! Skipped, with the reason printed, where no file system can be mounted (not root, or no
//! `CAP_SYS_ADMIN`): a full disk, a Maildir on a file system mounted read-only.

#![cfg(test)]

mod support;

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use support::TEXT;
use support::server::Setup;

/// A small file system of its own, unmounted on drop.
struct Mount {
    path: PathBuf,
}

impl Mount {
    /// `None`, with the reason printed, where nothing can be mounted.
    fn tmpfs(path: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let output = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size},mode=700"),
                "ringpost-test",
            ])
            .arg(&path)
            .output()
            .unwrap();
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            eprintln!("skipped: no file system can be mounted here: {reason}");
            return None;
        }
        Some(Self { path })
    }

    fn remount(&self, how: &str) {
        let status = Command::new("mount")
            .args(["-o", &format!("remount,{how}")])
            .arg(&self.path)
            .status()
            .unwrap();
        assert!(status.success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(&self.path).status();
    }
}

/// Writes until nothing more fits.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    let mut piece = 1 << 16;
    while piece > 0 {
        match file.write_all(&vec![0; piece]) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
                piece /= 16;
            }
        }
    }
}

#[test]
fn a_full_disk_is_452_loses_nothing_and_heals() {
    let setup = Setup::new();
    let Some(mount) = Mount::tmpfs(setup.path("small"), "1m") else {
        return;
    };
    let server = setup
        .flag("--deliver", format!("maildir:{}", mount.path.display()))
        .start();
    let mut client = server.client();
    client.ehlo();
    let to = ["u@example.test"];
    client.deliver("a@b.test", &to, TEXT).begins("250");
    let ballast = mount.path.join("ballast");
    fill(&ballast);
    let text = [TEXT, &b"0123456789abcdef\r\n".repeat(4000)].concat();
    client.deliver("a@b.test", &to, &text).begins("452 4.3.1");
    // A recipient that has no directory yet, and two at once: all or nothing.
    client
        .deliver("a@b.test", &["new@example.test"], &text)
        .begins("452 4.3.1");
    client
        .deliver("a@b.test", &["u@example.test", "v@example.test"], &text)
        .begins("452 4.3.1");
    client.say("NOOP").begins("250");
    let maildir = support::Maildir::new(mount.path.join("example.test/u"));
    assert_eq!(maildir.messages().len(), 1);
    maildir.check();
    fs::remove_file(&ballast).unwrap();
    client.deliver("a@b.test", &to, &text).begins("250");
    client.quit();
    assert_eq!(maildir.messages().len(), 2);
    maildir.check();
    drop(server);
    drop(mount);
}

#[test]
fn a_read_only_file_system_is_4yz_and_heals() {
    let setup = Setup::new();
    let Some(mount) = Mount::tmpfs(setup.path("small"), "1m") else {
        return;
    };
    let server = setup
        .flag("--deliver", format!("maildir:{}", mount.path.display()))
        .start();
    let mut client = server.client();
    client.ehlo();
    client
        .deliver("a@b.test", &["u@example.test"], TEXT)
        .begins("250");
    mount.remount("ro");
    for to in ["u@example.test", "new@example.test"] {
        let reply = client.deliver("a@b.test", &[to], TEXT);
        assert!([451, 452].contains(&reply.code), "{reply:?}");
    }
    mount.remount("rw");
    client
        .deliver("a@b.test", &["u@example.test"], TEXT)
        .begins("250");
    client.quit();
    drop(server);
    drop(mount);
}

/// A file where a directory should be: no permissions involved, so it holds for root as well.
#[test]
fn a_maildir_that_cannot_be_made_is_451() {
    let server = Setup::new().start();
    fs::create_dir_all(server.path("mail/example.test")).unwrap();
    fs::write(server.path("mail/example.test/u"), "in the way").unwrap();
    let mut client = server.client();
    client.ehlo();
    let reply = client.deliver("a@b.test", &["u@example.test"], TEXT);
    assert!([451, 452].contains(&reply.code), "{reply:?}");
    reply.begins("45");
    client
        .deliver("a@b.test", &["v@example.test"], TEXT)
        .begins("250");
    client.quit();
}
