//! Memory in several pieces, lent to the kernel for one write.
//!
//! ```text
//!   slices     [......][][....][.........]      with skip 8, all at most LIST_MAX entries
//!   list                   [..][.........]
//! ```
//!
//! Invariants:
//! - The value that has the memory is at one address from submission to completion, so a slice may also be of
//!   a field of it, and nobody can change it meanwhile.
//! - The kernel's list names no empty slice, and is empty only if nothing is left to write.

use std::rc::Rc;

/// Memory that can be lent to the kernel for a write: some slices, in order.
///
/// A value whose write nobody waits for is dropped at the completion, from inside the driver: its `drop` must
/// not use the ring.
pub trait Slices: 'static {
    /// The slices. The same ones whenever it is called, until the value is changed.
    fn slices(&self) -> impl Iterator<Item = &[u8]>;
}

impl Slices for Vec<u8> {
    fn slices(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.as_slice())
    }
}

/// What a vectored write owns: the value, and the list of its slices for the kernel.
pub(super) struct Lent<S> {
    // `Rc` and not `Box`: moving a box claims that nothing else leads into it, and the list does.
    source: Rc<S>,
    list: Vec<libc::iovec>,
}

impl<S: Slices> Lent<S> {
    /// The slices of `source` without their first `skip` octets, as many as one operation takes.
    pub(super) fn new(source: S, skip: usize) -> Lent<S> {
        let source = Rc::new(source);
        let mut list = Vec::new();
        let mut skip = skip;
        for slice in source.slices() {
            let Some(rest) = slice.get(skip..) else {
                skip -= slice.len();
                continue;
            };
            skip = 0;
            if list.len() == LIST_MAX {
                break;
            }
            if !rest.is_empty() {
                list.push(libc::iovec {
                    // The kernel only reads from it: it is the list of a write.
                    iov_base: rest.as_ptr().cast_mut().cast(),
                    iov_len: rest.len(),
                });
            }
        }
        Lent { source, list }
    }

    /// The list: at an address that stays the same while `self` moves.
    pub(super) fn list(&self) -> &[libc::iovec] {
        &self.list
    }

    /// Gives the value back.
    pub(super) fn into_source(self) -> S {
        #[expect(
            clippy::expect_used,
            reason = "the share made in `new` is never cloned"
        )]
        Rc::into_inner(self.source).expect("the only share")
    }
}

/// UIO_MAXIOV of the kernel: it refuses a longer list with EINVAL.
const LIST_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    struct Pieces(Vec<&'static str>);

    impl Slices for Pieces {
        fn slices(&self) -> impl Iterator<Item = &[u8]> {
            self.0.iter().map(|piece| piece.as_bytes())
        }
    }

    #[test]
    fn the_list_begins_behind_what_is_skipped_and_names_nothing_empty() {
        for (name, pieces, skip, expected) in [
            ("nothing", &[][..], 0, &[][..]),
            ("nothing, skipped", &[], 3, &[]),
            ("only empty ones", &["", ""], 0, &[]),
            ("one", &["abc"], 0, &[3]),
            ("part of one", &["abc"], 2, &[1]),
            ("all of one", &["abc"], 3, &[]),
            ("more than there is", &["abc"], 4, &[]),
            ("up to a border", &["abc", "", "de"], 3, &[2]),
            ("past a border", &["abc", "", "de", "f"], 4, &[1, 1]),
            ("empty ones between", &["", "ab", "", "c", ""], 0, &[2, 1]),
        ] {
            let lent = Lent::new(Pieces(pieces.to_vec()), skip);
            let lengths: Vec<usize> = lent.list().iter().map(|entry| entry.iov_len).collect();
            assert_eq!(lengths, expected, "{name}");
            assert_eq!(lent.into_source().0, pieces, "{name}");
        }
    }

    #[test]
    fn the_list_is_as_long_as_the_kernel_takes() {
        for (slices, expected) in [
            (LIST_MAX - 1, LIST_MAX - 1),
            (LIST_MAX, LIST_MAX),
            (LIST_MAX + 1, LIST_MAX),
        ] {
            let lent = Lent::new(Pieces(vec!["x"; slices]), 0);
            assert_eq!(lent.list().len(), expected);
        }
    }
}
