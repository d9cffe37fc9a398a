//! What is sent: generated messages of chosen sizes, or real ones from a directory.
//!
//! Made before the run begins and shared by all threads, so that making mail costs the run next to nothing.

mod corpus;
mod generated;
mod sizes;

use rand::rngs::SmallRng;
use ringpost::smtp::client::ContentFacts;

pub use corpus::{Corpus, CorpusError};
pub use generated::{Generated, MESSAGE_OCTETS_MIN};
pub use sizes::Sizes;

/// Where messages come from.
#[derive(Clone, Debug)]
pub enum Mail {
    /// Made for the purpose.
    Generated(Generated),
    /// Real ones, in turn.
    Corpus(Corpus),
}

/// A message to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its octets, in two parts.
    pub parts: [&'a [u8]; 2],
    /// What they are like.
    pub facts: ContentFacts,
}

impl Message<'_> {
    /// Octets of both parts.
    pub fn octets(&self) -> u64 {
        let octets: usize = self.parts.iter().map(|part| part.len()).sum();
        u64::try_from(octets).unwrap_or(u64::MAX)
    }
}

impl Mail {
    /// The message of this number. `head` is room for what is unlike other messages.
    pub fn message<'a>(
        &'a self,
        number: u64,
        random: &mut SmallRng,
        head: &'a mut Vec<u8>,
    ) -> Message<'a> {
        match self {
            Mail::Generated(generated) => generated.message(number, random, head),
            Mail::Corpus(corpus) => corpus.message(number),
        }
    }

    /// In words, for a report.
    pub fn describe(&self) -> String {
        match self {
            Mail::Generated(generated) => generated.sizes().describe(),
            Mail::Corpus(corpus) => corpus.describe(),
        }
    }
}
