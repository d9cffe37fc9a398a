//! The highest rate that a server holds: which rates are tried, and what it takes to hold one.
//!
//! Both are computed from figures alone; the steps themselves are runs like any other.

mod search;
mod step;

pub use search::{Answer, Search, Verdict};
pub use step::{Bound, Judgement};
