//! Where accepted mail goes: targets, routes to them, and a Maildir a recipient.
//!
//! Knows messages and files. It knows no session: what it tells is whether a message is safe now.

mod delivery;
pub mod maildir;
pub mod target;

pub use delivery::{Delivery, DeliveryError, DeliverySettings, Durability, Routes};
