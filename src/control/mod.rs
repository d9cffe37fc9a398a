//! control

pub mod log;
pub mod metrics;
pub mod privileges;
mod time;
