//! deliver

pub mod target;
