//! ringpost: an SMTP edge server on io_uring and OpenSSL.
//!
//! A message's way through it, one thread a core and nothing shared on the way:
//!
//! ```text
//!  peer ◀──▶ ring ◀──▶ shard ◀── octets ──▶ tls ── octets ──▶ smtp::server::Session
//!                        │                                          │
//!                        └──────────────── Effect ◀─────────────────┘
//!                             │ Store, Commit         │ Verify      │ Secure, Input, Close
//!                             ▼                       ▼             ▼
//!                  deliver::Queue ──▶ spool          auth        tls, ring
//!                        │             │ on stable storage: 250
//!                        ▼             ▼
//!                     attempts ─┬─▶ Maildir, discard ─────────┬─▶ noted as done
//!                               └─▶ hops: dns, tls, ring, ────┴─▶ report, a message for deliver::Queue
//!                                   smtp::client::Session ◀──▶ next hop
//! ```
//!
//! | module | owns | must never know |
//! |---|---|---|
//! | [`smtp`] | the protocol core: grammar, sessions of both sides (`server`, `client`), end of data, replies | sockets, files, the clock, any module of ours |
//! | [`tls`] | OpenSSL: certificates, contexts of both sides, ticket keys, TLS over memory | sockets, SMTP |
//! | [`ring`] | all of io_uring, and the `unsafe` that takes | SMTP, TLS |
//! | [`peers`] | who counts as one peer, and how many places each one holds | what the places are |
//! | [`auth`] | users, hashes, threads that verify passwords | sessions |
//! | [`deliver`] | the queue of a shard, attempts and their schedule, targets, routes, Maildir; connections to next hops (`hops`), which hosts those are (`dns`), what senders are told (`report`) | sessions |
//! | [`spool`] | what was accepted, on stable storage: the log, its segments, recovery | sessions, where mail goes |
//! | [`shard`] | one core: accepts, drives sessions, performs their effects, enforces deadlines | flags, HTTP |
//! | [`control`] | the process: start, signals, reload, metrics, logs, end | what is said in a session |
//! | [`config`] | what was asked for, checked, with the files it names | how it was asked |
//! | [`cli`] | flags, one file a command | everything but [`config`] and what a command calls |
//!
//! Arrows of use point down, without circles: `main` → `cli` → `control` → `shard` → `deliver` → `spool`, and `auth` →
//! `tls`, `ring`, `smtp`, `peers`. `config` stands beside `control`: it names values of the modules below it. Of
//! `control`, a shard sees what it writes to: `metrics`, `events` and `log`, which use nothing above them.

pub mod auth;
pub mod cli;
pub mod config;
pub mod control;
pub mod deliver;
pub mod peers;
#[expect(
    unsafe_code,
    reason = "memory and descriptors lent to the kernel; the rules are in its doc"
)]
pub mod ring;
pub mod shard;
pub mod smtp;
pub mod spool;
pub mod tls;
