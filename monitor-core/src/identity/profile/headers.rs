//! Header names that mean something, found among those that do not by one look at most.

use crate::ascii::is_name;

/// Names and what they mean.
#[derive(Debug)]
pub(in crate::identity) struct Headers<T> {
    /// Where the names of a mark begin among the entries; most marks have none.
    starts: Box<[(u16, u16); MARKS]>,
    /// A bit for each length that one of them has: most other names have none of these.
    lengths: u64,
    entries: Vec<(Box<str>, T)>,
}

const MARKS: usize = 256;

/// The bit of a length; very long names share one.
fn length_bit(name: &[u8]) -> u64 {
    1 << name.len().min(63)
}

/// Of length and three bytes in any case.
fn mark(name: &[u8]) -> usize {
    let (Some(first), Some(last)) = (name.first(), name.last()) else { return 0 };
    let middle = name[name.len() / 2];
    let byte = |byte: u8| usize::from(byte | 0x20);
    (name.len() * 61 + byte(*first) * 7 + byte(middle) * 29 + byte(*last) * 3) % MARKS
}

impl<T: Copy> Headers<T> {
    /// The first entry of a name counts.
    pub(in crate::identity) fn new(names: impl IntoIterator<Item = (String, T)>) -> Headers<T> {
        let mut entries: Vec<(Box<str>, T)> = Vec::new();
        for (name, meaning) in names {
            if !entries.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name)) {
                entries.push((name.into(), meaning));
            }
        }
        entries.sort_by_key(|(name, _)| mark(name.as_bytes()));
        let mut starts = Box::new([(0, 0); MARKS]);
        for (at, (name, _)) in (0_u16..).zip(&entries) {
            let start = &mut starts[mark(name.as_bytes())];
            *start = if start.1 == 0 { (at, at + 1) } else { (start.0, at + 1) };
        }
        let lengths = entries.iter().fold(0, |bits, (name, _)| bits | length_bit(name.as_bytes()));
        Headers { starts, lengths, entries }
    }

    /// What a name means, in any case.
    #[inline]
    pub(in crate::identity) fn find(&self, name: &str) -> Option<T> {
        if self.lengths & length_bit(name.as_bytes()) == 0 {
            return None;
        }
        let (start, end) = self.starts[mark(name.as_bytes())];
        if start == end {
            return None;
        }
        self.entries[usize::from(start)..usize::from(end)]
            .iter()
            .find(|(known, _)| is_name(name.as_bytes(), known.as_bytes()))
            .map(|(_, meaning)| *meaning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_others_are_not() {
        let names: Vec<String> =
            (0..500).map(|number| format!("X-Header-{number}")).chain(["K".into()]).collect();
        let table = Headers::new(names.iter().cloned().zip(0_usize..));
        for (number, name) in names.iter().enumerate() {
            assert_eq!(table.find(name), Some(number));
            assert_eq!(table.find(&name.to_lowercase()), Some(number));
            assert_eq!(table.find(&format!("{name}x")), None);
        }
        assert_eq!(table.find(""), None);
        let twice = Headers::new([("a".into(), 1), ("A".into(), 2)]);
        assert_eq!(twice.find("a"), Some(1));
    }
}
