//! A simulated file: what a read sees, what stable storage holds, and the changes between the two.
//!
//! Apart from the disk because here is decided what a crash makes of a file.
//! Invariants:
//! - What was made durable changes only through a later write to the same octets.
//! - An older change never comes to lie over a newer one that was made durable.
//! - A change is settled once: made durable, in part or not at all. A later sync does not bring back the rest.

use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use fastrand::Rng;

use super::contents::{Contents, PAGE_OCTETS};

/// A file, with or without a name in a directory.
pub(super) struct File {
    /// What it was called first, for those who read the history.
    pub(super) name: Rc<Path>,
    now: State,
    kept: State,
    unsynced: Vec<Change>,
}

/// A file as one observer sees it.
#[derive(Clone, Default)]
struct State {
    contents: Contents,
    length: u64,
    /// Octets from the file's begin on that have blocks whether they were written or not.
    reserved: u64,
}

/// What an operation changed and no sync has covered yet.
struct Change {
    /// Its place in the order in which all changes of the disk came about.
    effect: u64,
    operation: u64,
    what: What,
}

enum What {
    Octets { offset: u64, octets: Vec<u8> },
    Length { from: u64, to: u64 },
    Reserved { octets: u64 },
}

/// What became of a change that no sync covered.
#[derive(Clone, Copy)]
pub(super) enum Fate {
    Kept,
    Dropped,
    /// Of each sector the salt decides.
    Torn {
        salt: u64,
    },
}

/// A change's end, for the history.
pub(super) struct Settled {
    pub(super) operation: u64,
    pub(super) name: Rc<Path>,
    pub(super) part: Part,
    pub(super) fate: Fate,
}

/// What of a file a fate met.
pub(super) enum Part {
    Octets(Range<u64>),
    /// It ended at the first and should at the second; it ends at the third now.
    Length(u64, u64, u64),
    Reserved(u64),
}

impl File {
    pub(super) fn new(name: Rc<Path>) -> Self {
        let (now, kept) = (State::default(), State::default());
        Self {
            name,
            now,
            kept,
            unsynced: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.now.length
    }

    /// Appends what lies at `offset`, as far as the file goes.
    pub(super) fn read(&self, into: &mut Vec<u8>, offset: u64, octets: usize) {
        let left = usize::try_from(self.now.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        self.now.contents.append_to(into, offset, octets.min(left));
    }

    /// Makes each of these octets another one, durable or not.
    pub(super) fn rot(&mut self, range: Range<u64>, rng: &mut Rng) {
        for at in range {
            let other = rng.u8(1..);
            for state in [&mut self.now, &mut self.kept] {
                let mut octet = Vec::new();
                state.contents.append_to(&mut octet, at, 1);
                state.contents.write(at, &[octet[0] ^ other]);
            }
        }
    }

    pub(super) fn write(&mut self, effect: u64, operation: u64, offset: u64, octets: Vec<u8>) {
        self.now.contents.write(offset, &octets);
        self.lengthen(effect, operation, offset + octets.len() as u64);
        self.unsynced.push(Change {
            effect,
            operation,
            what: What::Octets { offset, octets },
        });
    }

    pub(super) fn reserve(&mut self, effect: u64, operation: u64, octets: u64) {
        self.now.reserved = self.now.reserved.max(octets);
        self.lengthen(effect, operation, octets);
        self.unsynced.push(Change {
            effect,
            operation,
            what: What::Reserved { octets },
        });
    }

    fn lengthen(&mut self, effect: u64, operation: u64, to: u64) {
        let from = self.now.length;
        if to > from {
            self.now.length = to;
            self.unsynced.push(Change {
                effect,
                operation,
                what: What::Length { from, to },
            });
        }
    }

    /// Makes durable what came about before the change `before`.
    pub(super) fn sync(&mut self, before: u64) {
        let chosen = |change: &Change| change.effect < before;
        // The length that a write brought may have been lost to a sync that failed. What was written again
        // has to be reached all the same.
        let written = self
            .unsynced
            .iter()
            .filter(|change| chosen(change))
            .filter_map(Change::end);
        self.kept.length = self.kept.length.max(written.max().unwrap_or(0));
        self.settle(chosen, || Fate::Kept, &mut |_| {});
    }

    /// Makes durable the octets of one write, and of the length what it takes to reach them.
    pub(super) fn sync_write(&mut self, effect: u64, range: Range<u64>) {
        self.settle(|change| change.effect == effect, || Fate::Kept, &mut |_| {});
        self.kept.length = self.kept.length.max(range.end);
    }

    /// A sync of what came about before the change `before` failed: some of it is durable, the rest never is.
    pub(super) fn fail_sync(&mut self, before: u64, rng: &mut Rng, told: &mut impl FnMut(Settled)) {
        self.settle(|change| change.effect < before, || Fate::draw(rng), told);
    }

    /// The sync within a write failed. The kernel marks whole pages clean, so older unsynced writes into them
    /// meet the same end.
    pub(super) fn fail_sync_write(
        &mut self,
        effect: u64,
        range: Range<u64>,
        rng: &mut Rng,
        told: &mut impl FnMut(Settled),
    ) {
        let pages = pages_of(&range);
        let meets = |change: &Change| match &change.what {
            What::Octets { offset, octets } => {
                let others = pages_of(&(*offset..offset + octets.len() as u64));
                change.effect <= effect && others.start < pages.end && pages.start < others.end
            }
            What::Length { .. } | What::Reserved { .. } => change.effect == effect,
        };
        self.settle(meets, || Fate::draw(rng), told);
    }

    /// The file as it is found after a power cut.
    pub(super) fn crash(&mut self, rng: &mut Rng, told: &mut impl FnMut(Settled)) {
        self.settle(|_| true, || Fate::draw(rng), told);
        self.kept.contents.cut(self.kept.length);
        self.now = self.kept.clone();
    }

    /// Ends the chosen changes, oldest first.
    fn settle(
        &mut self,
        chosen: impl Fn(&Change) -> bool,
        mut fate: impl FnMut() -> Fate,
        told: &mut impl FnMut(Settled),
    ) {
        let chosen: Vec<Change> = self
            .unsynced
            .extract_if(.., |change| chosen(change))
            .collect();
        // The pieces that are left of one write share its fate.
        let mut last = None;
        for change in chosen {
            let fate = match (&change.what, last) {
                (What::Octets { .. }, Some((effect, fate))) if effect == change.effect => fate,
                _ => fate(),
            };
            let part = match change.what {
                What::Octets { offset, octets } => {
                    last = Some((change.effect, fate));
                    self.settle_octets(change.effect, offset, &octets, fate);
                    Part::Octets(offset..offset + octets.len() as u64)
                }
                What::Length { from, to } => {
                    let length = match fate {
                        Fate::Kept => to,
                        Fate::Dropped => from,
                        Fate::Torn { salt } => Rng::with_seed(salt).u64(from..=to),
                    };
                    if !matches!(fate, Fate::Dropped) {
                        self.kept.length = self.kept.length.max(length);
                    }
                    Part::Length(from, to, self.kept.length)
                }
                What::Reserved { octets } => {
                    if !matches!(fate, Fate::Dropped) {
                        self.kept.reserved = self.kept.reserved.max(octets);
                    }
                    Part::Reserved(octets)
                }
            };
            let name = Rc::clone(&self.name);
            told(Settled {
                operation: change.operation,
                name,
                part,
                fate,
            });
        }
    }

    fn settle_octets(&mut self, effect: u64, offset: u64, octets: &[u8], fate: Fate) {
        match fate {
            Fate::Kept => self.keep(effect, offset, octets),
            Fate::Dropped => {}
            Fate::Torn { .. } => {
                let mut at = offset;
                let mut rest = octets;
                while !rest.is_empty() {
                    let sector = at / SECTOR_OCTETS;
                    let left = usize::try_from((sector + 1) * SECTOR_OCTETS - at);
                    let (part, later) = rest.split_at(left.expect("small").min(rest.len()));
                    if fate.keeps(sector) {
                        self.keep(effect, at, part);
                    }
                    at += part.len() as u64;
                    rest = later;
                }
            }
        }
    }

    /// Puts octets on stable storage, where an older change must not come to lie over them.
    fn keep(&mut self, effect: u64, offset: u64, octets: &[u8]) {
        self.kept.contents.write(offset, octets);
        let range = offset..offset + octets.len() as u64;
        if !self
            .unsynced
            .iter()
            .any(|change| change.effect < effect && change.meets(&range))
        {
            return;
        }
        let mut left = Vec::with_capacity(self.unsynced.len() + 1);
        for change in self.unsynced.drain(..) {
            if change.effect < effect && change.meets(&range) {
                left.extend(change.without(&range));
            } else {
                left.push(change);
            }
        }
        self.unsynced = left;
    }

    /// Blocks that it takes from the disk.
    pub(super) fn blocks(&self) -> u64 {
        let reserved = blocks_for(self.now.reserved);
        reserved + self.now.contents.count(reserved..u64::MAX)
    }

    /// Blocks that are missing for all octets up to `octets`.
    pub(super) fn blocks_missing(&self, octets: u64) -> u64 {
        let reserved = blocks_for(self.now.reserved);
        let wanted = blocks_for(octets);
        wanted.saturating_sub(reserved) - self.now.contents.count(reserved..wanted)
    }

    /// Where octets without a block begin in `range`, when that many blocks may be had.
    pub(super) fn without_block(&self, range: Range<u64>, free: u64) -> Option<u64> {
        let pages = pages_of(&range);
        let first = (pages.start..pages.end)
            .skip_while(|page| *page < blocks_for(self.now.reserved))
            .filter(|page| !self.now.contents.has(*page))
            .nth(usize::try_from(free).unwrap_or(usize::MAX))?;
        Some((first * PAGE_OCTETS as u64).max(range.start))
    }

    pub(super) fn reserved_blocks(&self) -> u64 {
        blocks_for(self.now.reserved)
    }
}

impl Change {
    /// Where the octets it wrote end.
    fn end(&self) -> Option<u64> {
        match &self.what {
            What::Octets { offset, octets } => Some(offset + octets.len() as u64),
            What::Length { .. } | What::Reserved { .. } => None,
        }
    }

    fn meets(&self, range: &Range<u64>) -> bool {
        match &self.what {
            What::Octets { offset, octets } => {
                *offset < range.end && range.start < offset + octets.len() as u64
            }
            What::Length { .. } | What::Reserved { .. } => false,
        }
    }

    /// What is left before and behind `range`.
    fn without(self, range: &Range<u64>) -> Vec<Self> {
        let Self {
            effect,
            operation,
            what,
        } = self;
        let What::Octets { offset, octets } = what else {
            return vec![Self {
                effect,
                operation,
                what,
            }];
        };
        let within = |at: u64| usize::try_from(at.saturating_sub(offset)).unwrap_or(usize::MAX);
        let head = &octets[..within(range.start).min(octets.len())];
        let tail = &octets[within(range.end).min(octets.len())..];
        [(offset, head), (range.end, tail)]
            .into_iter()
            .filter(|(_, piece)| !piece.is_empty())
            .map(|(offset, piece)| What::Octets {
                offset,
                octets: piece.to_vec(),
            })
            .map(|what| Self {
                effect,
                operation,
                what,
            })
            .collect()
    }
}

impl Fate {
    fn draw(rng: &mut Rng) -> Self {
        match rng.u8(0..3) {
            0 => Self::Kept,
            1 => Self::Dropped,
            _ => Self::Torn { salt: rng.u64(..) },
        }
    }

    /// Whether a write's octets in this sector are durable.
    pub(super) fn keeps(self, sector: u64) -> bool {
        match self {
            Self::Kept => true,
            Self::Dropped => false,
            Self::Torn { salt } => Rng::with_seed(salt.wrapping_add(sector << 32)).bool(),
        }
    }
}

/// The pages that octets lie in.
fn pages_of(range: &Range<u64>) -> Range<u64> {
    range.start / PAGE_OCTETS as u64..blocks_for(range.end)
}

fn blocks_for(octets: u64) -> u64 {
    octets.div_ceil(PAGE_OCTETS as u64)
}

/// What a disk writes whole or not at all.
pub(super) const SECTOR_OCTETS: u64 = 512;
