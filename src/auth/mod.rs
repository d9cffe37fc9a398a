//! Who may log in: the users file, its hashes, and their verification away from the shards.
//!
//! - [`hash`] makes and checks one password hash.
//! - [`users`] is the users file, read whole.
//! - [`verifier`] is the threads that hash, behind a bounded queue.
//!
//! It knows neither sessions nor sockets: a name, a password and the address they came from go in, yes or no
//! comes out.
//! Passwords are neither logged nor shown by `Debug`.

pub mod hash;
pub mod users;
pub mod verifier;

pub use hash::{HashError, StoredHash};
pub use users::{Users, UsersError};
pub use verifier::{Busy, Verifier};
