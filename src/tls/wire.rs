//! The two buffers OpenSSL reads from and writes to in place of a socket.
//!
//! Invariants:
//! - Neither direction ever waits: a read from an empty buffer says `WouldBlock`.
//! - A drained buffer gives its memory back, so an idle session holds none here.

use std::io::{self, Read, Write};

/// Ciphertext on its way in and out.
#[derive(Debug, Default)]
pub(super) struct Wire {
    inbound: Vec<u8>,
    /// How much of `inbound` OpenSSL has taken.
    taken: usize,
    outbound: Vec<u8>,
}

impl Wire {
    pub(super) fn receive(&mut self, ciphertext: &[u8]) {
        if self.taken > 0 {
            self.inbound.drain(..self.taken);
            self.taken = 0;
        }
        self.inbound.extend_from_slice(ciphertext);
    }

    /// The octets OpenSSL has not taken yet.
    pub(super) fn waiting(&self) -> &[u8] {
        self.inbound.get(self.taken..).unwrap_or_default()
    }

    pub(super) fn outbound(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outbound)
    }

    pub(super) fn has_outbound(&self) -> bool {
        !self.outbound.is_empty()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.inbound.capacity() + self.outbound.capacity()
    }

    /// Nothing more will be read: the octets still waiting are of no use.
    pub(super) fn discard_inbound(&mut self) {
        self.inbound = Vec::new();
        self.taken = 0;
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let waiting = self.waiting();
        if waiting.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let octets = waiting.len().min(into.len());
        if let (Some(to), Some(from)) = (into.get_mut(..octets), waiting.get(..octets)) {
            to.copy_from_slice(from);
        }
        self.taken += octets;
        if self.taken == self.inbound.len() {
            self.discard_inbound();
        }
        Ok(octets)
    }
}

impl Write for Wire {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.outbound.extend_from_slice(from);
        Ok(from.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
