//! A small file system of its own below a test's directory.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::eventually;
use super::programs::program;
use super::server::Setup;

/// Unmounted on drop.
pub(crate) struct Mount {
    pub(crate) path: PathBuf,
    image: Option<PathBuf>,
    /// The directory around it goes behind it.
    _setup: Setup,
}

impl Mount {
    /// `None`, with the reason printed, where nothing can be mounted: not root, or no `CAP_SYS_ADMIN`.
    pub(crate) fn tmpfs(setup: &Setup, name: &str, size: &str) -> Option<Self> {
        let path = setup.path(name);
        let options = format!("size={size},mode=700");
        mount(&["-t", "tmpfs", "-o", &options, "ringpost-test"], &path)?;
        Some(Self {
            path,
            image: None,
            _setup: setup.beside(),
        })
    }

    /// An ext4 on a loop device, its image beside it.
    pub(crate) fn ext4(setup: &Setup, name: &str, octets: u64) -> Option<Self> {
        let path = setup.path(name);
        let image = path.with_extension("image");
        File::create(&image).unwrap().set_len(octets).unwrap();
        let made = program("mkfs.ext4")
            .args(["-q", "-F", "-m", "0"])
            .arg(&image)
            .output()
            .unwrap();
        assert!(made.status.success(), "mkfs.ext4: {made:?}");
        mount(&["-o", "loop", image.to_str().unwrap()], &path)?;
        Some(Self {
            path,
            image: Some(image),
            _setup: setup.beside(),
        })
    }

    pub(crate) fn remount(&self, how: &str) {
        let status = Command::new("mount")
            .args(["-o", &format!("remount,{how}")])
            .arg(&self.path)
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Mounts the image anew, which replays its journal, as after a cut. Nobody may have a file open there; the
    /// kernel lets go of those of a ring a moment after its process has ended.
    pub(crate) fn again(&self) {
        eventually("it is unmounted", || {
            let umount = Command::new("umount").arg(&self.path).output().unwrap();
            umount.status.success().then_some(())
        });
        let image = self.image.as_ref().unwrap().to_str().unwrap();
        mount(&["-o", "loop", image], &self.path).unwrap();
    }

    /// The name of its block device, as `loop0`.
    pub(crate) fn device(&self) -> String {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let path = self.path.to_str().unwrap();
        let device = mounts.lines().rev().find_map(|line| {
            let mut fields = line.split(' ');
            let device = fields.next()?;
            (fields.next() == Some(path)).then_some(device)
        });
        device.unwrap().trim_start_matches("/dev/").to_owned()
    }

    /// Flushes that its block device was asked for so far: the 16th field of its `stat`.
    pub(crate) fn flushes(&self) -> u64 {
        let stat = fs::read_to_string(format!("/sys/block/{}/stat", self.device())).unwrap();
        stat.split_whitespace().nth(15).unwrap().parse().unwrap()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(&self.path).status();
    }
}

fn mount(how: &[&str], path: &Path) -> Option<()> {
    fs::create_dir_all(path).unwrap();
    let output = Command::new("mount").args(how).arg(path).output().unwrap();
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        eprintln!("skipped: no file system can be mounted here: {reason}");
        return None;
    }
    Some(())
}

/// Writes until nothing more fits.
pub(crate) fn fill(path: &Path) {
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
    // Without it the blocks may only be promised to the file.
    let _ = file.sync_all();
}
