//! Vectors that report a shortage of memory, and the reuse of their memory.
//!
//! A `Vec` that can't grow ends the process. So every vector that grows with the data grows by one of these functions.

use crate::error::{Error, Result};

/// Makes room for `more` elements. Fails if memory is short.
#[inline]
pub(crate) fn grow<T>(list: &mut Vec<T>, more: usize) -> Result<()> {
    list.try_reserve(more).map_err(|_| Error::Memory)
}

/// Appends an element.
#[inline]
pub(crate) fn push<T>(list: &mut Vec<T>, element: T) -> Result<()> {
    grow(list, 1)?;
    list.push(element);
    Ok(())
}

/// Appends elements.
#[inline]
pub(crate) fn append<T: Copy>(list: &mut Vec<T>, elements: &[T]) -> Result<()> {
    grow(list, elements.len())?;
    list.extend_from_slice(elements);
    Ok(())
}

/// Joins several pieces.
pub(crate) fn concat<T: Copy>(pieces: &[&[T]]) -> Result<Vec<T>> {
    let mut whole = Vec::new();
    grow(&mut whole, pieces.iter().map(|piece| piece.len()).sum())?;
    for piece in pieces {
        whole.extend_from_slice(piece);
    }
    Ok(whole)
}

/// Collects the elements of an iterator.
pub(crate) fn collect<T>(elements: impl Iterator<Item = T>) -> Result<Vec<T>> {
    let mut list = Vec::new();
    grow(&mut list, elements.size_hint().0)?;
    for element in elements {
        push(&mut list, element)?;
    }
    Ok(list)
}

/// Frees room beyond `most` elements. If memory is short the room is kept, as a smaller vector has to be allocated first.
pub(crate) fn shrink<T: Copy>(list: &mut Vec<T>, most: usize) {
    let mut smaller = Vec::new();
    let size = most.max(list.len());
    if list.capacity() > size && smaller.try_reserve_exact(size).is_ok() {
        smaller.extend_from_slice(list);
        *list = smaller;
    }
}

/// Empties a vector and keeps its memory, unless one huge item needed a lot of it.
#[cfg_attr(
    not(feature = "python"),
    allow(dead_code, reason = "only the builder of objects uses it")
)]
#[inline]
pub(crate) fn clear<T>(list: &mut Vec<T>) {
    list.clear();
    if list.capacity() > MAX_KEPT {
        *list = Vec::new();
    }
}

/// The most elements for which [`clear`] keeps memory.
#[cfg_attr(
    not(feature = "python"),
    allow(dead_code, reason = "only the builder of objects uses it")
)]
const MAX_KEPT: usize = 1 << 16;

/// An empty vector with the memory of another one, which is left without any.
#[cfg_attr(
    not(feature = "python"),
    allow(dead_code, reason = "only the builder of objects uses it")
)]
pub(crate) fn recycle<A, B>(used: &mut Vec<A>) -> Vec<B> {
    let mut used = std::mem::take(used);
    clear(&mut used);
    // Collected in place: the standard library keeps the allocation if the sizes agree.
    used.into_iter().filter_map(|_| None).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recycled_memory_is_the_same_memory() {
        let mut used = vec![1_u64; 100];
        let (memory, capacity) = (used.as_ptr() as usize, used.capacity());
        let recycled: Vec<i64> = recycle(&mut used);
        assert_eq!((recycled.as_ptr() as usize, recycled.capacity()), (memory, capacity));
        assert!(recycled.is_empty() && used.capacity() == 0);
    }

    #[test]
    fn the_memory_of_a_huge_item_is_given_back() {
        let mut list = vec![0_u8; MAX_KEPT + 1];
        clear(&mut list);
        assert_eq!(list.capacity(), 0);
        let mut list = vec![0_u8; MAX_KEPT];
        clear(&mut list);
        assert_eq!(list.capacity(), MAX_KEPT);
    }

    #[test]
    fn what_grew_is_whole() {
        assert_eq!(concat(&[b"ab".as_slice(), b"", b"c"]), Ok(b"abc".to_vec()));
        assert_eq!(collect(0..3), Ok(vec![0, 1, 2]));
        let mut list = Vec::with_capacity(100);
        append(&mut list, &[1, 2]).unwrap();
        shrink(&mut list, 10);
        assert_eq!((list.capacity(), list), (10, vec![1, 2]));
    }

    #[test]
    fn too_much_is_an_error() {
        assert_eq!(grow(&mut Vec::<u8>::new(), usize::MAX), Err(Error::Memory));
    }
}
