//! Gives up what only the start needed, and learns what the kernel lets the process have: descriptors, cores.
//!
//! Invariants:
//! - After [`Identity::assume`] no thread of the process can become root again.
//! - Nothing here is done halfway in silence: a step that fails is an error, and the start ends.
//!
//! The kernel keeps an identity for each thread. So the identity is changed while the process has
//! one thread, and every later thread inherits it; with more, [`Identity::assume`] refuses.
//! Names are looked up in /etc/passwd and /etc/group, not by NSS, whose calls would be the only
//! unsafe ones here; accounts kept elsewhere are given by number.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid};
use rustix::process::{Resource, Rlimit};

/// Whom the process is to run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `None`: the user stays.
    user: Option<Uid>,
    group: Gid,
    /// The groups beside [`Self::group`].
    supplementary: Vec<Gid>,
}

/// Why the process cannot run as it was told to.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegesError {
    /// `/etc/passwd` or `/etc/group` cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// No such user.
    #[error("--user {0}: no such user in /etc/passwd (one kept elsewhere is given by number)")]
    User(String),
    /// No such group.
    #[error("--group {0}: no such group in /etc/group (one kept elsewhere is given by number)")]
    Group(String),
    /// A user by number that /etc/passwd does not list has no group of its own.
    #[error("--user {0}: not in /etc/passwd, so --group must say which group it has")]
    GroupMissing(String),
    /// Not root, and not that user already.
    #[error("--user, --group: only root can become somebody else; start as root, or as that user")]
    NotRoot,
    /// Threads that would keep the old identity.
    #[error("--user, --group: the process has {0} threads already, not one")]
    Threads(usize),
    /// The kernel refuses.
    #[error("cannot give up {what}: {source}")]
    Kernel {
        /// What.
        what: &'static str,
        /// What went wrong.
        source: io::Error,
    },
    /// The kernel let us have root back.
    #[error("root could be had again after it was given up")]
    NotFinal,
}

impl Identity {
    /// The identity that `--user` and `--group` name; `None` without either.
    pub fn resolve(
        user: Option<&str>,
        group: Option<&str>,
    ) -> Result<Option<Self>, PrivilegesError> {
        if user.is_none() && group.is_none() {
            return Ok(None);
        }
        let read = |path: &str| {
            fs::read_to_string(path).map_err(|source| PrivilegesError::Read {
                path: path.into(),
                source,
            })
        };
        resolve_in(&read("/etc/passwd")?, &read("/etc/group")?, user, group)
    }

    /// Whether [`Identity::assume`] can succeed: asked early, since what comes before it fails with
    /// less telling errors.
    pub fn may_be_assumed(&self) -> Result<(), PrivilegesError> {
        if self.is_ours() || rustix::process::geteuid().is_root() {
            return Ok(());
        }
        Err(PrivilegesError::NotRoot)
    }

    /// Becomes this identity for good. Call it when everything that takes root is bound and
    /// opened, and before the first thread is started.
    pub fn assume(&self) -> Result<(), PrivilegesError> {
        self.may_be_assumed()?;
        if self.is_ours() {
            return Ok(());
        }
        let threads = threads().map_err(|source| PrivilegesError::Kernel {
            what: "root: threads unknown",
            source,
        })?;
        if threads != 1 {
            return Err(PrivilegesError::Threads(threads));
        }
        let kernel = |what| {
            move |error: rustix::io::Errno| PrivilegesError::Kernel {
                what,
                source: error.into(),
            }
        };
        // Groups first: without root they could not be changed any more.
        rustix::thread::set_thread_groups(&self.supplementary).map_err(kernel("the groups"))?;
        rustix::thread::set_thread_res_gid(self.group, self.group, self.group)
            .map_err(kernel("the group"))?;
        let Some(user) = self.user else {
            return Ok(());
        };
        rustix::thread::set_thread_res_uid(user, user, user).map_err(kernel("root"))?;
        if !user.is_root() && rustix::thread::set_thread_uid(Uid::ROOT).is_ok() {
            return Err(PrivilegesError::NotFinal);
        }
        Ok(())
    }

    /// Makes `path` belong to this identity. For what the start makes while it is still root.
    pub fn own(&self, path: &Path) -> io::Result<()> {
        std::os::unix::fs::chown(path, self.user.map(Uid::as_raw), Some(self.group.as_raw()))
    }

    /// Whether the process runs as this identity already; then its groups are its starter's
    /// business.
    fn is_ours(&self) -> bool {
        let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
        self.user
            .is_none_or(|user| user == uid && rustix::process::geteuid() == uid)
            && !uid.is_root()
            && self.group == gid
    }
}

/// How many descriptors the process may have: the soft limit now.
pub fn descriptors_max() -> u64 {
    rustix::process::getrlimit(Resource::Nofile)
        .current
        .unwrap_or(u64::MAX)
}

/// How many descriptors the process has.
pub fn descriptors_open() -> io::Result<u64> {
    let entries = fs::read_dir("/proc/self/fd")?.count();
    // One of them is the descriptor that the directory is read by.
    Ok(u64::try_from(entries).unwrap_or(u64::MAX).saturating_sub(1))
}

/// Raises the soft limit of descriptors to the hard one, and returns what there is then. A limit
/// that cannot be raised stays: the sessions then are as many as it lets be.
pub fn raise_descriptors_max() -> u64 {
    let Rlimit { current, maximum } = rustix::process::getrlimit(Resource::Nofile);
    if current != maximum {
        // A hard limit above fs.nr_open is refused with EPERM.
        let _ = rustix::process::setrlimit(
            Resource::Nofile,
            Rlimit {
                current: maximum,
                maximum,
            },
        );
    }
    descriptors_max()
}

/// The cores that the process may run on, by number: a container or taskset(1) leaves some out. None if the
/// kernel does not tell.
pub fn cores_allowed() -> Vec<usize> {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap_or_default();
    (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|core| allowed.is_set(*core))
        .collect()
}

fn threads() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}

fn resolve_in(
    passwd: &str,
    groups: &str,
    user: Option<&str>,
    group: Option<&str>,
) -> Result<Option<Identity>, PrivilegesError> {
    let account = match user {
        Some(name) => Some(account(passwd, name)?),
        None => None,
    };
    let group = match (group, &account) {
        (Some(name), _) => gid(groups, name)?,
        (
            None,
            Some(Account {
                group: Some(group), ..
            }),
        ) => *group,
        (None, Some(account)) => {
            return Err(PrivilegesError::GroupMissing(
                account.uid.as_raw().to_string(),
            ));
        }
        (None, None) => return Ok(None),
    };
    let supplementary = match account.as_ref().and_then(|account| account.name) {
        Some(name) => supplementary(groups, name, group),
        None => Vec::new(),
    };
    Ok(Some(Identity {
        user: account.map(|account| account.uid),
        group,
        supplementary,
    }))
}

/// A line of /etc/passwd, or a bare number.
struct Account<'p> {
    name: Option<&'p str>,
    uid: Uid,
    group: Option<Gid>,
}

/// `name:password:uid:gid:…` (passwd(5)). A number counts as one only if nobody has it for a name.
fn account<'p>(passwd: &'p str, name: &str) -> Result<Account<'p>, PrivilegesError> {
    let unknown = || PrivilegesError::User(name.to_owned());
    let accounts = || {
        passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, _password) = (fields.next()?, fields.next()?);
            let (uid, gid) = (number(fields.next()?)?, number(fields.next()?)?);
            Some(Account {
                name: Some(name),
                uid: Uid::from_raw(uid),
                group: Some(Gid::from_raw(gid)),
            })
        })
    };
    if let Some(account) = accounts().find(|account| account.name == Some(name)) {
        return Ok(account);
    }
    let uid = Uid::from_raw(number(name).ok_or_else(unknown)?);
    let listed = accounts().find(|account| account.uid == uid);
    Ok(listed.unwrap_or(Account {
        name: None,
        uid,
        group: None,
    }))
}

/// `name:password:gid:members` (group(5)).
fn gid(groups: &str, name: &str) -> Result<Gid, PrivilegesError> {
    let by_name = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name)
            .then(|| number(fields.nth(1)?))
            .flatten()
    });
    by_name
        .or_else(|| number(name))
        .map(Gid::from_raw)
        .ok_or_else(|| PrivilegesError::Group(name.to_owned()))
}

/// The groups that list `name` as a member.
fn supplementary(groups: &str, name: &str, primary: Gid) -> Vec<Gid> {
    let mut gids: Vec<Gid> = groups
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let gid = number(fields.nth(2)?)?;
            fields
                .next()?
                .split(',')
                .any(|member| member == name)
                .then(|| Gid::from_raw(gid))
        })
        .filter(|gid| *gid != primary)
        .collect();
    gids.sort_unstable_by_key(|gid| gid.as_raw());
    gids.dedup();
    gids
}

/// An id. The greatest one stands for "leave as it is" in the calls that change ids.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        # comment\n\
        mail:x:8:8:mail:/var/mail:/usr/sbin/nologin\n\
        42:x:77:77::/:/bin/false\n\
        broken:x:none:8::/:/bin/false\n";
    const GROUPS: &str = "root:x:0:\nmail:x:8:\nssl-cert:x:110:postfix,mail\nadm:x:4:mail,root\n\
        again:x:4:mail\nodd:x:9:mailman\n";

    fn identity(user: Option<u32>, group: u32, supplementary: &[u32]) -> Option<Identity> {
        Some(Identity {
            user: user.map(Uid::from_raw),
            group: Gid::from_raw(group),
            supplementary: supplementary
                .iter()
                .map(|gid| Gid::from_raw(*gid))
                .collect(),
        })
    }

    #[test]
    fn the_cores_allowed_are_those_that_threads_get() {
        let cores = cores_allowed();
        let mine = cores[cores.len() - 1];
        std::thread::spawn(move || {
            let mut one = rustix::thread::CpuSet::new();
            one.set(mine);
            rustix::thread::sched_setaffinity(None, &one).unwrap();
            assert_eq!(cores_allowed(), [mine]);
        })
        .join()
        .unwrap();
        assert!(cores_allowed().contains(&mine));
    }

    #[test]
    fn names_and_numbers() {
        let rows = [
            ("neither", None, None, None),
            (
                "a user with its groups",
                Some("mail"),
                None,
                identity(Some(8), 8, &[4, 110]),
            ),
            (
                "and another group",
                Some("mail"),
                Some("adm"),
                identity(Some(8), 4, &[110]),
            ),
            ("a group alone", None, Some("adm"), identity(None, 4, &[])),
            (
                "a listed number",
                Some("8"),
                None,
                identity(Some(8), 8, &[4, 110]),
            ),
            (
                "a name of digits",
                Some("42"),
                None,
                identity(Some(77), 77, &[]),
            ),
            (
                "numbers not listed",
                Some("1000"),
                Some("1001"),
                identity(Some(1000), 1001, &[]),
            ),
        ];
        for (name, user, group, expected) in rows {
            assert_eq!(
                resolve_in(PASSWD, GROUPS, user, group).unwrap(),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn faults_name_the_flag() {
        let rows = [
            (
                Some("nobody"),
                None,
                "--user nobody: no such user in /etc/passwd",
            ),
            (
                Some("broken"),
                None,
                "--user broken: no such user in /etc/passwd",
            ),
            (Some(""), None, "--user : no such user"),
            (
                Some("4294967295"),
                Some("mail"),
                "--user 4294967295: no such user",
            ),
            (
                Some("mail"),
                Some("none"),
                "--group none: no such group in /etc/group",
            ),
            (
                Some("1000"),
                None,
                "--user 1000: not in /etc/passwd, so --group",
            ),
        ];
        for (user, group, text) in rows {
            let error = resolve_in(PASSWD, GROUPS, user, group)
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(text), "{error}");
            assert!(!error.contains('\n'));
        }
    }

    #[test]
    fn with_threads_nothing_is_given_up() {
        let identity = identity(Some(65_534), 65_534, &[]).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| match identity.assume() {
                Err(PrivilegesError::Threads(threads)) => assert!(threads > 1),
                Err(PrivilegesError::NotRoot) => {}
                other => panic!("{other:?}"),
            });
        });
    }

    #[test]
    fn descriptors() {
        let before = descriptors_open().unwrap();
        assert!(before >= 3);
        let max = raise_descriptors_max();
        assert!(max > before);
        assert_eq!(max, descriptors_max());
        assert_eq!(raise_descriptors_max(), max);
    }
}
