//! Everything that touches io_uring, and with OpenSSL's FFI the only `unsafe` of the program.
//!
//! A shard sees futures that own what they lend to the kernel. The rules that keep this sound:
//!
//! - An operation in flight owns its memory and a share of its descriptor. Dropping the future leaves both to
//!   the runtime's driver, or to a place of the intake, which frees them at the completion and not before; a
//!   ring that ends with operations in flight never frees them.
//! - A descriptor closes when its last share goes, so its number is never reused under an operation.
//! - Every operation here completes exactly once: the runtime's slots cannot take a second completion,
//!   so nothing multishot passes through [`op::submit`], nor through [`intake`].
//!
//! A shard has two rings: the runtime's, for what we do, and the intake's, for what peers do by themselves. The
//! runtime cannot be told to enter its ring and wait there, which is what serves many sessions at least cost.
//!
//! This module knows sockets, files and buffers. It knows nothing of SMTP or TLS.

mod buffers;
mod descriptor;
mod file;
mod incoming;
mod intake;
mod op;
mod pace;
mod runtime;
mod slices;
mod socket;

pub use buffers::ReceiveBuffer;
pub use file::{Access, File, WriteSync, create_directory, remove_directory, remove_file, rename};
pub use incoming::{Acceptor, Receiver, Receiving};
pub use intake::{Intake, IntakeSettings};
pub use runtime::{RingError, RingSettings, probe, run};
pub use slices::Slices;
pub use socket::{Accepted, Listener, Sending, Sent, Socket};
