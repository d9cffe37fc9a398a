//! control

pub mod metrics;
pub mod privileges;
