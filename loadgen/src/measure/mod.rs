//! What is measured: times by stage, counts by time, what went wrong; by each thread for itself.
//!
//! A thread owns its [`Tally`] and shares nothing but the counters of [`Live`]; [`Tally::add`] makes one of
//! all when the threads have ended. [`Figures`] are what a reader gets of that.

mod errors;
mod figures;
mod live;
mod stage;
mod tally;
mod timeline;

pub use errors::{ErrorKind, Errors};
pub use figures::{ErrorFigures, Figures, GeneratorFigures, ServerFigures};
pub use live::{Live, Seen};
pub use stage::{CurvePoint, Percentiles, Stage, Stages};
pub use tally::{Handshakes, Sample, Tally};
pub use timeline::{Moment, Timeline};
