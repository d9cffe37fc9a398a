//! What lies in a simulated file: pages, of which those that were never written are zeros and take no memory.
//!
//! Pages are shared until one side writes, so that a disk of many files goes through a crash without copies.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

/// Octets by offset. A clone shares the pages.
#[derive(Clone, Default)]
pub(super) struct Contents {
    pages: BTreeMap<u64, Rc<[u8; PAGE_OCTETS]>>,
}

impl Contents {
    pub(super) fn write(&mut self, offset: u64, octets: &[u8]) {
        let mut at = offset;
        let mut rest = octets;
        while !rest.is_empty() {
            let (page, within) = place(at);
            let (part, later) = rest.split_at(rest.len().min(PAGE_OCTETS - within));
            let page = self
                .pages
                .entry(page)
                .or_insert_with(|| Rc::new([0; PAGE_OCTETS]));
            Rc::make_mut(page)[within..within + part.len()].copy_from_slice(part);
            at += part.len() as u64;
            rest = later;
        }
    }

    pub(super) fn append_to(&self, into: &mut Vec<u8>, offset: u64, octets: usize) {
        let mut at = offset;
        let mut left = octets;
        while left > 0 {
            let (page, within) = place(at);
            let part = left.min(PAGE_OCTETS - within);
            match self.pages.get(&page) {
                Some(page) => into.extend_from_slice(&page[within..within + part]),
                None => into.resize(into.len() + part, 0),
            }
            at += part as u64;
            left -= part;
        }
    }

    /// What lies from `length` on is zeros afterwards.
    pub(super) fn cut(&mut self, length: u64) {
        let (page, within) = place(length);
        drop(self.pages.split_off(&(page + 1)));
        if within == 0 {
            self.pages.remove(&page);
        } else if let Some(page) = self.pages.get_mut(&page) {
            Rc::make_mut(page)[within..].fill(0);
        }
    }

    pub(super) fn has(&self, page: u64) -> bool {
        self.pages.contains_key(&page)
    }

    /// How many of these pages were written.
    pub(super) fn count(&self, pages: Range<u64>) -> u64 {
        if pages.is_empty() {
            return 0;
        }
        self.pages.range(pages).count() as u64
    }
}

/// The page an offset lies in, and where in it.
fn place(offset: u64) -> (u64, usize) {
    let within = usize::try_from(offset % PAGE_OCTETS as u64).expect("a page is small");
    (offset / PAGE_OCTETS as u64, within)
}

/// A page of x86-64's memory, which is also a block of ext4.
pub(super) const PAGE_OCTETS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_where_they_were_written_and_zeros_elsewhere() {
        let mut contents = Contents::default();
        contents.write(4000, &[7; 5000]);
        let before = contents.clone();
        contents.write(4090, &[8; 10]);
        let mut read = Vec::new();
        contents.append_to(&mut read, 3999, 5002);
        assert_eq!(read.len(), 5002);
        assert_eq!(
            (read[0], read[1], read[90], read[91], read[100]),
            (0, 7, 7, 8, 8)
        );
        assert_eq!((read[101], read[5000], read[5001]), (7, 7, 0));

        let mut read = Vec::new();
        before.append_to(&mut read, 4090, 10);
        assert_eq!(read, [7; 10], "a clone keeps what it had");
    }

    #[test]
    fn what_was_cut_off_reads_as_zeros() {
        for length in [0, 1, 4095, 4096, 4097, 8192, 9000, 20_000] {
            let mut contents = Contents::default();
            contents.write(0, &[7; 9000]);
            contents.cut(length);
            let mut read = Vec::new();
            contents.append_to(&mut read, 0, 9000);
            let left = read.iter().take_while(|octet| **octet == 7).count();
            assert_eq!(left as u64, length.min(9000), "cut at {length}");
            assert!(
                read[left..].iter().all(|octet| *octet == 0),
                "cut at {length}"
            );
        }
    }
}
