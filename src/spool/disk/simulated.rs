//! A disk in memory that crashes and fails on request, by a seed: as nasty as a kernel and a power cut may be.
//!
//! ```text
//!  write ──▶ what reads see ── sync ──▶ stable storage ──▶ the disk after the reboot
//!                    └──────── crash: kept, dropped or torn ────────────┘
//! ```
//!
//! It promises what [`Disk`] promises and takes every liberty beside:
//! - An operation lets others go first, up to three times before it takes effect and as often before it ends.
//! - At a crash each unsynced write is kept, dropped, or torn: any of its sectors of 512 octets are there and
//!   the others not. So is each write in flight, [`WriteSync::Yes`] or not. Neither knows of the others: a later
//!   write may be there without an earlier one, even within one sector. A length that grew is there, or not,
//!   or in part; what lies behind it is gone.
//! - What was synced and not written again is never harmed, not even by a write into the same sector.
//! - Names that were made, renamed and removed without a sync of their directory are kept up to a point and
//!   lost from there on, in the order in which they came about, as in a journal. Where the disk is
//!   [wild](Simulated::set_wild), any of them are kept. A rename is one change. The sync of a file does nothing
//!   for its name.
//! - A sync that fails ends what it was to cover as a crash would: some of it is durable. Reads still see all
//!   of it, and a later sync makes no more of it durable, unless it is written again. The sync within a write
//!   takes along older unsynced writes into the same pages. The sync of a directory does so with its names.
//! - A write that fails may have written a part; a reserve that fails may have reserved one.
//!
//! The same seed, crash point and calls give the same run and the same disk after it. That takes futures that
//! are deterministic themselves: under [`run`] they are if they `select!` with `biased` and ask no clock.
//!
//! It does not know: hard links, renames of directories, an operation that goes on after its future was
//! dropped (on the ring it does; here it stays where it was).
//!
//! ```ignore
//! for seed in 0..10_000 {
//!     let disk = Simulated::new(seed, CrashAfter(1 + seed % 60));
//!     let acknowledged = RefCell::default();
//!     run(disk.until_crash(scenario(disk.clone(), &acknowledged)));
//!     let disk = disk.crash();
//!     run(recover(disk.clone(), &acknowledged)); // on failure, print the disk: it tells all that happened
//! }
//! ```

mod contents;
mod file;
mod history;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::future::{Future, pending};
use std::io;
use std::ops::Range;
use std::path::{Component, Path};
use std::rc::{Rc, Weak};

use fastrand::Rng;
use tokio::sync::Notify;

use self::contents::PAGE_OCTETS;
use self::file::File;
use self::history::{Given, History, Line, Operation, Outcome};
use super::{Access, Disk, DiskFile, Slices, WriteSync};

/// Runs a future and the tasks that it starts with [`tokio::task::spawn_local`], in an order that is the same
/// each time. What is left of the tasks is dropped at the end.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("takes no descriptor");
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// The disk. It begins with the directory `/`, empty; relative paths begin there too.
#[derive(Clone)]
pub(crate) struct Simulated {
    world: Rc<RefCell<World>>,
    went_down: Rc<Notify>,
}

/// The operation that begins and never ends, nor does any later: 1 is the first one. Each counts, reads too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CrashAfter(pub(crate) u64);

impl CrashAfter {
    /// No operation.
    pub(crate) const NEVER: Self = Self(u64::MAX);
}

/// How often what fails, from 0.0, never, to 1.0, always.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Faults {
    /// A write takes less than it was given.
    pub(crate) short_writes: f64,
    /// A read gives less than there is.
    pub(crate) short_reads: f64,
    /// EIO on a write, of which a part may be written.
    pub(crate) write_errors: f64,
    /// EIO on a sync, of a file, within a write, or of a directory.
    pub(crate) sync_errors: f64,
    /// ENOSPC on a new file or directory, on a reserve, and on a write where nothing is reserved or written.
    pub(crate) no_space: f64,
    /// EMFILE on opening and making a file.
    pub(crate) no_descriptor: f64,
}

/// An open file of the disk.
#[derive(Clone)]
pub(crate) struct SimulatedFile(Rc<OpenFile>);

struct OpenFile {
    disk: Simulated,
    path: Rc<Path>,
    access: Access,
    file: Rc<RefCell<File>>,
}

impl Simulated {
    /// An empty disk without faults and of any capacity.
    pub(crate) fn new(seed: u64, crash: CrashAfter) -> Self {
        Self::from_world(World {
            seed,
            rng: Rng::with_seed(seed),
            crash,
            operations: 0,
            effects: 0,
            power: Power::On,
            wild: false,
            faults: Faults::default(),
            capacity: u64::MAX,
            root: Rc::default(),
            entry_changes: Vec::new(),
            open: Vec::new(),
            history: Rc::default(),
        })
    }

    fn from_world(world: World) -> Self {
        Self {
            world: Rc::new(RefCell::new(world)),
            went_down: Rc::default(),
        }
    }

    /// Cuts the power, if it is not off already, and gives the disk as it is found afterwards: without faults
    /// and crash point, counting its operations from the first, otherwise as set. What is still done on the old
    /// one never ends. Once for each disk.
    pub(crate) fn crash(&self) -> Self {
        self.went_down.notify_waiters();
        Self::from_world(self.world.borrow_mut().reboot())
    }

    /// Kills the process and leaves the power on: the next one finds all that was written, as far as the kernel
    /// came to it, and none of it is more durable for that. Otherwise as [`Simulated::crash`].
    pub(crate) fn kill(&self) -> Self {
        self.went_down.notify_waiters();
        Self::from_world(self.world.borrow_mut().next_process())
    }

    /// Changes octets of a file under everyone's feet, on stable storage too: each is another one afterwards.
    pub(crate) fn rot(&self, path: &Path, range: Range<u64>) {
        let mut world = self.world.borrow_mut();
        let (parent, name) = world.place(path).expect("a path");
        let file = parent.file(&name).expect("a file");
        file.borrow_mut().rot(range.clone(), &mut world.rng);
        world.tell(Line::Rot(path.into(), range));
    }

    /// What a read of the whole file sees, without an operation.
    pub(crate) fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        let world = self.world.borrow();
        let (parent, name) = world.place(path)?;
        let file = parent.file(&name)?;
        let mut octets = Vec::new();
        let file = file.borrow();
        file.read(&mut octets, 0, usize::MAX);
        Ok(octets)
    }

    /// The names in a directory, sorted, without an operation.
    pub(crate) fn names(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let directory = self.world.borrow().directory(directory)?;
        let names = directory.now.borrow().keys().cloned().collect();
        Ok(names)
    }

    /// Ends when the power is off.
    pub(crate) async fn crashed(&self) {
        let went_down = self.went_down.notified();
        if self.is_on() {
            went_down.await;
        }
    }

    /// What the work comes to; nothing if the disk crashes before.
    pub(crate) async fn until_crash<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.crashed() => None,
            done = work => Some(done),
        }
    }

    /// How many operations began.
    pub(crate) fn operations(&self) -> u64 {
        self.world.borrow().operations
    }

    pub(crate) fn set_crash(&self, crash: CrashAfter) {
        self.world.borrow_mut().crash = crash;
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.world.borrow_mut().faults = faults;
    }

    /// Octets that fit. Files take whole pages of 4096. Directories and names take nothing, but no new ones are
    /// made on a full disk.
    pub(crate) fn set_capacity(&self, octets: u64) {
        self.world.borrow_mut().capacity = octets;
    }

    /// Whether a crash keeps any of the changes to directories that were not synced, instead of the first ones.
    pub(crate) fn set_wild(&self, wild: bool) {
        self.world.borrow_mut().wild = wild;
    }

    fn is_on(&self) -> bool {
        matches!(self.world.borrow().power, Power::On)
    }

    /// One operation: `effect` happens at once, some time after the begin and before the end. `ends` follows
    /// at the end, and is what a crash in between prevents.
    async fn perform<T, R>(
        &self,
        what: Operation,
        effect: impl FnOnce(&mut World, u64) -> io::Result<T>,
        ends: impl FnOnce(&mut World, T) -> io::Result<R>,
        told: impl FnOnce(&R) -> Outcome,
    ) -> io::Result<R> {
        let begun = self.world.borrow_mut().begin(what);
        let operation = match begun {
            Begun::Goes(operation) => operation,
            Begun::Last(operation) => {
                self.break_off(operation, effect);
                return pending().await;
            }
            Begun::PowerIsOff => return pending().await,
        };
        self.let_others_go_first().await;
        let outcome = self.world.borrow_mut().take_effect(operation, effect);
        self.let_others_go_first().await;
        let mut world = self.world.borrow_mut();
        let outcome = outcome.and_then(|value| ends(&mut world, value));
        world.tell(Line::Ends(operation, Outcome::of(&outcome, told)));
        outcome
    }

    /// The operation during which the power goes: the kernel may have come to it or not.
    fn break_off<T>(&self, operation: u64, effect: impl FnOnce(&mut World, u64) -> io::Result<T>) {
        let mut world = self.world.borrow_mut();
        if world.rng.bool() {
            // Whether it went well, nobody learns.
            drop(world.take_effect(operation, effect));
        }
        world.power_off();
        drop(world);
        self.went_down.notify_waiters();
    }

    async fn let_others_go_first(&self) {
        let times = self.world.borrow_mut().rng.u8(0..YIELDS_END);
        for _ in 0..times {
            // Not a wake of one's own: a task so woken runs many times before the future given to `run` does.
            tokio::task::yield_now().await;
        }
        if !self.is_on() {
            pending::<()>().await;
        }
    }

    async fn open_file(
        &self,
        name: &'static str,
        path: &Path,
        access: Access,
        find: impl FnOnce(&mut World, u64) -> io::Result<Rc<RefCell<File>>>,
    ) -> io::Result<SimulatedFile> {
        let shown: Rc<Path> = path.into();
        let what = Operation {
            name,
            path: Rc::clone(&shown),
            given: Given::Nothing,
        };
        let file = self.perform(what, find, same, done).await?;
        let open = OpenFile {
            disk: self.clone(),
            path: shown,
            access,
            file,
        };
        let open = Rc::new(open);
        self.world.borrow_mut().opened(&open);
        Ok(SimulatedFile(open))
    }
}

impl Disk for Simulated {
    type File = SimulatedFile;

    async fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let what = Operation::on("list", directory);
        let effect = |world: &mut World, _| {
            let directory = world.directory(directory)?;
            let mut names: Vec<_> = directory.now.borrow().keys().cloned().collect();
            world.rng.shuffle(&mut names);
            Ok(names)
        };
        self.perform(what, effect, same, |names| {
            Outcome::Octets(names.len() as u64)
        })
        .await
    }

    async fn make_directory(&self, directory: &Path) -> io::Result<()> {
        let what = Operation::on("make_directory", directory);
        let effect = |world: &mut World, operation| {
            let (parent, name) = world.place(directory)?;
            if parent.get(&name).is_some() {
                return Err(os(libc::EEXIST));
            }
            world.find_space_for_name()?;
            world.change(
                operation,
                vec![(parent, name, Some(Entry::Directory(Rc::default())))],
            );
            Ok(())
        };
        self.perform(what, effect, same, done).await
    }

    async fn remove_directory(&self, directory: &Path) -> io::Result<()> {
        let what = Operation::on("remove_directory", directory);
        let effect = |world: &mut World, operation| {
            let (parent, name) = world.place(directory)?;
            match parent.get(&name) {
                None => return Err(os(libc::ENOENT)),
                Some(Entry::File(_)) => return Err(os(libc::ENOTDIR)),
                Some(Entry::Directory(it)) if it.now.borrow().is_empty() => {}
                Some(Entry::Directory(_)) => return Err(os(libc::ENOTEMPTY)),
            }
            world.change(operation, vec![(parent, name, None)]);
            Ok(())
        };
        self.perform(what, effect, same, done).await
    }

    async fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let what = Operation::on("sync_directory", directory);
        let before = self.world.borrow().effects;
        let effect = |world: &mut World, _| world.directory(directory);
        let ends = |world: &mut World, directory: Rc<Directory>| {
            let chosen = |change: &EntryChange| change.effect < before && change.is_in(&directory);
            if world.hits(|faults| faults.sync_errors) {
                world.lose_entries(chosen);
                return Err(os(libc::EIO));
            }
            world.settle_entries(chosen, |_| true);
            Ok(())
        };
        self.perform(what, effect, ends, done).await
    }

    async fn create(&self, path: &Path) -> io::Result<SimulatedFile> {
        let find = |world: &mut World, operation| {
            let (parent, name) = world.place(path)?;
            if parent.get(&name).is_some() {
                return Err(os(libc::EEXIST));
            }
            world.find_descriptor()?;
            world.find_space_for_name()?;
            let file = Rc::new(RefCell::new(File::new(path.into())));
            let entry = Entry::File(Rc::clone(&file));
            world.change(operation, vec![(parent, name, Some(entry))]);
            Ok(file)
        };
        self.open_file("create", path, Access::ReadWrite, find)
            .await
    }

    async fn open(&self, path: &Path, access: Access) -> io::Result<SimulatedFile> {
        let find = |world: &mut World, _| {
            world.find_descriptor()?;
            let (parent, name) = world.place(path)?;
            parent.file(&name)
        };
        self.open_file("open", path, access, find).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let given = Given::Path(to.into());
        let what = Operation {
            given,
            ..Operation::on("rename", from)
        };
        let effect = |world: &mut World, operation| {
            let (old_parent, old_name) = world.place(from)?;
            let (parent, name) = world.place(to)?;
            let file = old_parent.file(&old_name)?;
            if let Some(Entry::Directory(_)) = parent.get(&name) {
                return Err(os(libc::EISDIR));
            }
            if Rc::ptr_eq(&old_parent, &parent) && old_name == name {
                return Ok(());
            }
            let file = Some(Entry::File(file));
            world.change(
                operation,
                vec![(old_parent, old_name, None), (parent, name, file)],
            );
            Ok(())
        };
        self.perform(what, effect, same, done).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let effect = |world: &mut World, operation| {
            let (parent, name) = world.place(path)?;
            parent.file(&name)?;
            world.change(operation, vec![(parent, name, None)]);
            Ok(())
        };
        self.perform(Operation::on("remove", path), effect, same, done)
            .await
    }
}

impl SimulatedFile {
    async fn perform<T, R>(
        &self,
        name: &'static str,
        given: Given,
        effect: impl FnOnce(&mut World, u64) -> io::Result<T>,
        ends: impl FnOnce(&mut World, T) -> io::Result<R>,
        told: impl FnOnce(&R) -> Outcome,
    ) -> io::Result<R> {
        let what = Operation {
            name,
            path: Rc::clone(&self.0.path),
            given,
        };
        self.0.disk.perform(what, effect, ends, told).await
    }

    fn check_writable(&self) -> io::Result<()> {
        match self.0.access {
            Access::ReadWrite => Ok(()),
            Access::Read => Err(os(libc::EBADF)),
        }
    }
}

impl DiskFile for SimulatedFile {
    async fn len(&self) -> io::Result<u64> {
        let effect = |_: &mut World, _| Ok(self.0.file.borrow().len());
        self.perform("len", Given::Nothing, effect, same, |octets| {
            Outcome::Octets(*octets)
        })
        .await
    }

    async fn reserve(&self, octets: u64) -> io::Result<()> {
        let effect = |world: &mut World, operation| {
            self.check_writable()?;
            world.reserve(&self.0.file, operation, octets)
        };
        self.perform("reserve", Given::Octets(octets), effect, same, done)
            .await
    }

    async fn write<S: Slices>(
        &self,
        source: S,
        skip: usize,
        offset: u64,
        sync: WriteSync,
    ) -> (io::Result<usize>, S) {
        let octets: usize = source.slices().map(<[u8]>::len).sum();
        let octets = octets.saturating_sub(skip);
        let given = Given::Slices {
            offset,
            octets: octets as u64,
            sync,
        };
        let effect = |world: &mut World, operation| {
            self.check_writable()?;
            world.write(&self.0.file, operation, &source, skip, offset)
        };
        let ends = |world: &mut World, written: Written| match sync {
            WriteSync::Yes if !written.range.is_empty() => world.sync_write(&self.0.file, written),
            WriteSync::Yes | WriteSync::No => Ok(written.octets()),
        };
        let told = |taken: &usize| Outcome::Octets(*taken as u64);
        let outcome = self.perform("write", given, effect, ends, told).await;
        (outcome, source)
    }

    async fn read(&self, mut into: Vec<u8>, offset: u64) -> (io::Result<usize>, Vec<u8>) {
        let room = into.capacity() - into.len();
        let given = Given::Room {
            offset,
            octets: room as u64,
        };
        let effect = |world: &mut World, _| {
            let file = self.0.file.borrow();
            let left = usize::try_from(file.len().saturating_sub(offset)).unwrap_or(usize::MAX);
            let mut octets = room.min(left);
            if octets > 1 && world.hits(|faults| faults.short_reads) {
                octets = world.rng.usize(1..octets);
            }
            file.read(&mut into, offset, octets);
            Ok(octets)
        };
        let told = |octets: &usize| Outcome::Octets(*octets as u64);
        let outcome = self.perform("read", given, effect, same, told).await;
        (outcome, into)
    }

    async fn sync(&self) -> io::Result<()> {
        // What takes effect while the sync is under way is not covered.
        let before = self.0.disk.world.borrow().effects;
        let ends = |world: &mut World, ()| {
            let mut file = self.0.file.borrow_mut();
            if world.hits(|faults| faults.sync_errors) {
                let World { rng, history, .. } = world;
                let mut history = history.borrow_mut();
                file.fail_sync(before, rng, &mut |settled| {
                    history.push(Line::File(settled))
                });
                return Err(os(libc::EIO));
            }
            file.sync(before);
            Ok(())
        };
        self.perform("sync", Given::Nothing, |_, _| Ok(()), ends, done)
            .await
    }
}

/// The seed, the crash point, and all that happened.
impl fmt::Display for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let world = self.world.borrow();
        writeln!(f, "simulated disk, seed {}", world.seed)?;
        write!(f, "{}", world.history.borrow())?;
        write!(f, "{} operations since the start, ", world.operations)?;
        match world.crash {
            CrashAfter::NEVER => f.write_str("no crash point"),
            CrashAfter(operation) => write!(f, "crash point {operation}"),
        }
    }
}

/// The same as [`Display`](fmt::Display): a failed `expect` is to tell it too.
impl fmt::Debug for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SimulatedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SimulatedFile").field(&self.0.path).finish()
    }
}

/// All that the clones of a disk share.
struct World {
    seed: u64,
    rng: Rng,
    crash: CrashAfter,
    /// Operations that began.
    operations: u64,
    /// Changes that came about. Each takes its number from here.
    effects: u64,
    power: Power,
    wild: bool,
    faults: Faults,
    capacity: u64,
    root: Rc<Directory>,
    /// What no sync of a directory has covered yet, oldest first.
    entry_changes: Vec<EntryChange>,
    open: Vec<Weak<OpenFile>>,
    history: Rc<RefCell<History>>,
}

enum Power {
    On,
    Off,
    /// What was on the disk belongs to another one now.
    Rebooted,
}

enum Begun {
    Goes(u64),
    /// The power goes during this one.
    Last(u64),
    PowerIsOff,
}

#[derive(Default)]
struct Directory {
    now: RefCell<Entries>,
    kept: RefCell<Entries>,
}

type Entries = BTreeMap<OsString, Entry>;

#[derive(Clone)]
enum Entry {
    File(Rc<RefCell<File>>),
    Directory(Rc<Directory>),
}

/// What an operation did to names.
struct EntryChange {
    effect: u64,
    operation: u64,
    names: Names,
}

/// Of which directory, which name, and what it names now. They change together.
type Names = Vec<(Rc<Directory>, OsString, Option<Entry>)>;

struct Written {
    effect: u64,
    range: Range<u64>,
}

impl World {
    fn tell(&self, line: Line) {
        self.history.borrow_mut().push(line);
    }

    fn begin(&mut self, what: Operation) -> Begun {
        match self.power {
            Power::Off | Power::Rebooted => return Begun::PowerIsOff,
            Power::On => {}
        }
        self.operations += 1;
        self.tell(Line::Begins(self.operations, what));
        if self.operations < self.crash.0 {
            Begun::Goes(self.operations)
        } else {
            Begun::Last(self.operations)
        }
    }

    fn take_effect<T>(
        &mut self,
        operation: u64,
        effect: impl FnOnce(&mut Self, u64) -> io::Result<T>,
    ) -> io::Result<T> {
        let outcome = effect(self, operation);
        if outcome.is_ok() {
            self.tell(Line::InEffect(operation));
        }
        outcome
    }

    fn power_off(&mut self) {
        if let Power::On = self.power {
            self.power = Power::Off;
            self.tell(Line::PowerCut);
        }
    }

    fn reboot(&mut self) -> Self {
        self.power_off();
        let mut next = self.next();
        next.lose_entries(|_| true);
        let root = Rc::clone(&next.root);
        next.crash_below(&root);
        next.tell(Line::Reboot);
        next
    }

    fn next_process(&mut self) -> Self {
        let next = self.next();
        next.tell(Line::Kill);
        next
    }

    /// The disk goes over to another world, and nothing is done in this one any more.
    fn next(&mut self) -> Self {
        assert!(
            !matches!(self.power, Power::Rebooted),
            "crash() or kill() was called on this disk before"
        );
        self.power = Power::Rebooted;
        Self {
            seed: self.seed,
            rng: self.rng.fork(),
            crash: CrashAfter::NEVER,
            operations: 0,
            effects: self.effects,
            power: Power::On,
            wild: self.wild,
            faults: Faults::default(),
            capacity: self.capacity,
            root: Rc::clone(&self.root),
            entry_changes: std::mem::take(&mut self.entry_changes),
            open: Vec::new(),
            history: Rc::clone(&self.history),
        }
    }

    fn crash_below(&mut self, directory: &Directory) {
        for entry in directory.kept.borrow().values() {
            match entry {
                Entry::Directory(directory) => self.crash_below(directory),
                Entry::File(file) => {
                    let mut history = self.history.borrow_mut();
                    let mut told = |settled| history.push(Line::File(settled));
                    file.borrow_mut().crash(&mut self.rng, &mut told);
                }
            }
        }
        directory.now.replace(directory.kept.borrow().clone());
    }

    fn hits(&mut self, rate: impl FnOnce(&Faults) -> f64) -> bool {
        self.rng.f64() < rate(&self.faults)
    }

    fn find_descriptor(&mut self) -> io::Result<()> {
        if self.hits(|faults| faults.no_descriptor) {
            return Err(os(libc::EMFILE));
        }
        Ok(())
    }

    fn find_space_for_name(&mut self) -> io::Result<()> {
        if self.hits(|faults| faults.no_space) || self.blocks_free() == 0 {
            return Err(os(libc::ENOSPC));
        }
        Ok(())
    }

    fn blocks_free(&self) -> u64 {
        if self.capacity == u64::MAX {
            return u64::MAX;
        }
        // A file that was removed keeps its blocks while it is open.
        let mut files = BTreeMap::new();
        self.root.files_below(&mut files);
        for open in self.open.iter().filter_map(Weak::upgrade) {
            files.insert(Rc::as_ptr(&open.file), Rc::clone(&open.file));
        }
        let used: u64 = files.values().map(|file| file.borrow().blocks()).sum();
        (self.capacity / PAGE_OCTETS as u64).saturating_sub(used)
    }

    fn opened(&mut self, open: &Rc<OpenFile>) {
        self.open.retain(|open| open.strong_count() > 0);
        self.open.push(Rc::downgrade(open));
    }

    fn directory(&self, path: &Path) -> io::Result<Rc<Directory>> {
        let mut directory = Rc::clone(&self.root);
        for component in path.components() {
            let name = match component {
                Component::RootDir | Component::CurDir => continue,
                Component::Normal(name) => name,
                Component::ParentDir | Component::Prefix(_) => return Err(os(libc::EINVAL)),
            };
            directory = match directory.get(name) {
                Some(Entry::Directory(directory)) => directory,
                Some(Entry::File(_)) => return Err(os(libc::ENOTDIR)),
                None => return Err(os(libc::ENOENT)),
            };
        }
        Ok(directory)
    }

    /// The directory that a path lies in, and its name there.
    fn place(&self, path: &Path) -> io::Result<(Rc<Directory>, OsString)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(os(libc::EINVAL));
        };
        Ok((self.directory(parent)?, name.to_owned()))
    }

    fn next_effect(&mut self) -> u64 {
        self.effects += 1;
        self.effects - 1
    }

    fn change(&mut self, operation: u64, names: Names) {
        for (directory, name, entry) in &names {
            put(&directory.now, name, entry);
        }
        let effect = self.next_effect();
        self.entry_changes.push(EntryChange {
            effect,
            operation,
            names,
        });
    }

    /// Ends changes of names as a crash does.
    fn lose_entries(&mut self, chosen: impl Fn(&EntryChange) -> bool) {
        let count = self
            .entry_changes
            .iter()
            .filter(|change| chosen(change))
            .count();
        let keep: BTreeSet<usize> = if self.wild {
            (0..count).filter(|_| self.rng.bool()).collect()
        } else {
            (0..self.rng.usize(0..=count)).collect()
        };
        let settled = self.settle_entries(chosen, |index| keep.contains(&index));
        for (index, operation) in settled.into_iter().enumerate() {
            self.tell(Line::Entry {
                operation,
                kept: keep.contains(&index),
            });
        }
    }

    /// Ends the chosen changes of names, oldest first. Gives back whose they were.
    fn settle_entries(
        &mut self,
        chosen: impl Fn(&EntryChange) -> bool,
        keeps: impl Fn(usize) -> bool,
    ) -> Vec<u64> {
        let chosen: Vec<EntryChange> = self
            .entry_changes
            .extract_if(.., |change| chosen(change))
            .collect();
        for (index, change) in chosen.iter().enumerate() {
            if !keeps(index) {
                continue;
            }
            for (directory, name, entry) in &change.names {
                put(&directory.kept, name, entry);
                // An older change that another directory's sync will cover must not undo this one.
                for older in self
                    .entry_changes
                    .iter_mut()
                    .filter(|it| it.effect < change.effect)
                {
                    older.names.retain(|(other, other_name, _)| {
                        !(Rc::ptr_eq(other, directory) && other_name == name)
                    });
                }
            }
        }
        chosen.into_iter().map(|change| change.operation).collect()
    }

    fn reserve(&mut self, file: &RefCell<File>, operation: u64, octets: u64) -> io::Result<()> {
        if octets == 0 {
            return Err(os(libc::EINVAL));
        }
        let missing = file.borrow().blocks_missing(octets);
        let free = self.blocks_free();
        if missing > free || missing > 0 && self.hits(|faults| faults.no_space) {
            // ext4 leaves what it had found until then.
            let found = self.rng.u64(0..=missing.min(free));
            let part = (file.borrow().reserved_blocks() + found) * PAGE_OCTETS as u64;
            if found > 0 && part < octets {
                let effect = self.next_effect();
                file.borrow_mut().reserve(effect, operation, part);
            }
            return Err(os(libc::ENOSPC));
        }
        let effect = self.next_effect();
        file.borrow_mut().reserve(effect, operation, octets);
        Ok(())
    }

    fn write(
        &mut self,
        file: &RefCell<File>,
        operation: u64,
        source: &impl Slices,
        skip: usize,
        offset: u64,
    ) -> io::Result<Written> {
        let octets: usize = source.slices().map(<[u8]>::len).sum();
        let octets = octets.saturating_sub(skip);
        let fails = self.hits(|faults| faults.write_errors);
        let is_short = self.hits(|faults| faults.short_writes);
        let wanted = match octets {
            0 => 0,
            _ if fails && self.rng.bool() => 0,
            _ if fails => self.rng.usize(1..=octets),
            1 => 1,
            _ if is_short => self.rng.usize(1..octets),
            _ => octets,
        };
        let Some(end) = offset.checked_add(wanted as u64) else {
            return Err(os(libc::EFBIG));
        };
        let free = match self.hits(|faults| faults.no_space) {
            true => 0,
            false => self.blocks_free(),
        };
        let end = file
            .borrow()
            .without_block(offset..end, free)
            .unwrap_or(end);
        let taken = usize::try_from(end - offset).expect("no more than was given");
        if taken == 0 && wanted > 0 && !fails {
            return Err(os(libc::ENOSPC));
        }
        let effect = self.next_effect();
        if taken > 0 {
            let octets = gather(source, skip, taken);
            file.borrow_mut().write(effect, operation, offset, octets);
        }
        if fails {
            return Err(os(libc::EIO));
        }
        Ok(Written {
            effect,
            range: offset..end,
        })
    }

    fn sync_write(&mut self, file: &RefCell<File>, written: Written) -> io::Result<usize> {
        let octets = written.octets();
        let Written { effect, range } = written;
        if self.hits(|faults| faults.sync_errors) {
            let mut history = self.history.borrow_mut();
            let mut told = |settled| history.push(Line::File(settled));
            file.borrow_mut()
                .fail_sync_write(effect, range, &mut self.rng, &mut told);
            return Err(os(libc::EIO));
        }
        file.borrow_mut().sync_write(effect, range);
        Ok(octets)
    }
}

impl Directory {
    fn get(&self, name: &OsStr) -> Option<Entry> {
        self.now.borrow().get(name).cloned()
    }

    fn file(&self, name: &OsStr) -> io::Result<Rc<RefCell<File>>> {
        match self.get(name) {
            Some(Entry::File(file)) => Ok(file),
            Some(Entry::Directory(_)) => Err(os(libc::EISDIR)),
            None => Err(os(libc::ENOENT)),
        }
    }

    fn files_below(&self, files: &mut BTreeMap<*const RefCell<File>, Rc<RefCell<File>>>) {
        for entry in self.now.borrow().values() {
            match entry {
                Entry::File(file) => drop(files.insert(Rc::as_ptr(file), Rc::clone(file))),
                Entry::Directory(directory) => directory.files_below(files),
            }
        }
    }
}

impl EntryChange {
    fn is_in(&self, directory: &Rc<Directory>) -> bool {
        self.names
            .iter()
            .any(|(other, _, _)| Rc::ptr_eq(other, directory))
    }
}

impl Written {
    fn octets(&self) -> usize {
        usize::try_from(self.range.end - self.range.start).expect("came from memory")
    }
}

impl Operation {
    fn on(name: &'static str, path: &Path) -> Self {
        Self {
            name,
            path: path.into(),
            given: Given::Nothing,
        }
    }
}

fn put(entries: &RefCell<Entries>, name: &OsStr, entry: &Option<Entry>) {
    match entry {
        Some(entry) => drop(entries.borrow_mut().insert(name.to_owned(), entry.clone())),
        None => drop(entries.borrow_mut().remove(name)),
    }
}

/// Octets of a source from `skip` on.
fn gather(source: &impl Slices, skip: usize, octets: usize) -> Vec<u8> {
    let mut gathered = Vec::with_capacity(octets);
    let mut skip = skip;
    for slice in source.slices() {
        let rest = &slice[skip.min(slice.len())..];
        skip = skip.saturating_sub(slice.len());
        gathered.extend_from_slice(&rest[..rest.len().min(octets - gathered.len())]);
    }
    gathered
}

/// An operation that is through once it took effect.
fn same<T>(_: &mut World, value: T) -> io::Result<T> {
    Ok(value)
}

fn done<T>(_: &T) -> Outcome {
    Outcome::Done
}

fn os(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// An operation yields fewer times than this before it takes effect, and again before it ends.
const YIELDS_END: u8 = 4;

#[cfg(test)]
mod tests;
