//! shard

pub mod limits;
