//! What happened on a simulated disk, in order, for someone who looks at a failing seed.
//!
//! Kept as values and made into text only when it is printed: ten thousand seeds pass and nobody reads theirs.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use super::super::WriteSync;
use super::file::{Fate, Part, SECTOR_OCTETS, Settled};

/// All that happened, over crashes.
#[derive(Default)]
pub(super) struct History {
    lines: Vec<Line>,
}

pub(super) enum Line {
    Begins(u64, Operation),
    /// What it asked for is what others see from now on.
    InEffect(u64),
    Ends(u64, Outcome),
    File(Settled),
    Entry {
        operation: u64,
        kept: bool,
    },
    PowerCut,
    Reboot,
    Kill,
    Rot(Rc<Path>, Range<u64>),
}

/// An operation and what it was given.
#[derive(Clone)]
pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) path: Rc<Path>,
    pub(super) given: Given,
}

#[derive(Clone)]
pub(super) enum Given {
    Nothing,
    Path(Rc<Path>),
    Octets(u64),
    Slices {
        offset: u64,
        octets: u64,
        sync: WriteSync,
    },
    Room {
        offset: u64,
        octets: u64,
    },
}

/// How an operation ended, as far as its caller knows.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    Done,
    Octets(u64),
    Failed(Option<i32>),
}

impl History {
    pub(super) fn push(&mut self, line: Line) {
        self.lines.push(line);
    }
}

impl Outcome {
    pub(super) fn of<T>(result: &io::Result<T>, done: impl FnOnce(&T) -> Self) -> Self {
        match result {
            Ok(value) => done(value),
            Err(error) => Self::Failed(error.raw_os_error()),
        }
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begins(operation, what) => write!(f, "{operation:5} {what}"),
            Self::InEffect(operation) => write!(f, "{operation:5} .. in effect"),
            Self::Ends(operation, outcome) => write!(f, "{operation:5} -> {outcome}"),
            Self::File(settled) => write!(f, "{settled}"),
            Self::Entry {
                operation,
                kept: true,
            } => write!(f, "{operation:5} !! entry kept"),
            Self::Entry {
                operation,
                kept: false,
            } => write!(f, "{operation:5} !! entry lost"),
            Self::PowerCut => f.write_str("----- power cut"),
            Self::Reboot => f.write_str("----- reboot"),
            Self::Kill => f.write_str("----- killed"),
            Self::Rot(path, range) => write!(f, "----- rot in {} at {range:?}", path.display()),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.path.display())?;
        match &self.given {
            Given::Nothing => Ok(()),
            Given::Path(to) => write!(f, " to {}", to.display()),
            Given::Octets(octets) => write!(f, " {octets}"),
            Given::Room { offset, octets } => write!(f, " at {offset}, {octets} octets"),
            Given::Slices {
                offset,
                octets,
                sync,
            } => {
                write!(f, " at {offset}, {octets} octets")?;
                match sync {
                    WriteSync::Yes => f.write_str(", synced"),
                    WriteSync::No => Ok(()),
                }
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Octets(octets) => write!(f, "{octets}"),
            Self::Failed(Some(errno)) => write!(f, "{}", io::Error::from_raw_os_error(*errno)),
            Self::Failed(None) => f.write_str("failed"),
        }
    }
}

impl fmt::Display for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:5} !! {} ", self.operation, self.name.display())?;
        match &self.part {
            Part::Octets(range) => write!(f, "octets {range:?} ")?,
            Part::Length(from, to, now) => write!(f, "length {from} to {to}, now {now}, ")?,
            Part::Reserved(octets) => write!(f, "reserved {octets} ")?,
        }
        match (&self.part, self.fate) {
            (_, Fate::Kept) => f.write_str("kept"),
            (_, Fate::Dropped) => f.write_str("dropped"),
            (Part::Octets(range), Fate::Torn { .. }) => {
                f.write_str("torn, kept sectors")?;
                (range.start / SECTOR_OCTETS..range.end.div_ceil(SECTOR_OCTETS))
                    .filter(|sector| self.fate.keeps(*sector))
                    .try_for_each(|sector| write!(f, " {sector}"))
            }
            (Part::Length(..), Fate::Torn { .. }) => f.write_str("torn"),
            (Part::Reserved(_), Fate::Torn { .. }) => f.write_str("kept"),
        }
    }
}
