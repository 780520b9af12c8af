//! The static table, and a dynamic table of which a part may not be known.

use std::collections::VecDeque;

use super::decoder::Error;

/// What an entry counts besides its strings (RFC 7541, 4.1).
const ENTRY_BYTES: usize = 32;

/// Tables that are larger than this are not in use: browsers ask for 64 KiB at most. It bounds the
/// indices that are believed while the size of a table is not known.
const TABLE_BYTES_MAX: u64 = 1 << 20;

/// Indices below this are those of the static table, and 0.
const DYNAMIC_START: u32 = STATIC.len() as u32 + 1;

/// The static table from index 1 on (RFC 7541, appendix A).
const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// Name and value, each `None` when it is not known.
pub(super) type Found<'t> = (Option<&'t [u8]>, Option<&'t [u8]>);

/// The dynamic table, the newest entry first. Holds credentials, so it is never printed.
///
/// What is known of it is its beginning: entries that were seen to be inserted. Where the encoder's
/// bound is not known nothing is evicted by it, which is harmless: an encoder does not refer to what
/// it has evicted.
pub(super) struct Table {
    entries: VecDeque<Entry>,
    /// What the entries count, at least: names that are not known count nothing.
    size: usize,
    /// The encoder's bound, `None` when it is not known.
    bound: Option<u32>,
    /// There may be entries after those that are held.
    continues: bool,
    /// Entries are held up to this size, whatever the encoder's bound.
    held_max: usize,
}

struct Entry {
    /// Name and value.
    bytes: Box<[u8]>,
    /// `None` when the name is not known.
    name_bytes: Option<usize>,
}

impl Entry {
    fn new(name: Option<&[u8]>, value: &[u8]) -> Entry {
        let bytes = [name.unwrap_or_default(), value].concat().into_boxed_slice();
        Entry { bytes, name_bytes: name.map(<[u8]>::len) }
    }
}

impl Table {
    /// Empty, with the encoder's bound.
    pub(super) fn new(bound: u32, held_max: usize) -> Table {
        Table { entries: VecDeque::new(), size: 0, bound: Some(bound), continues: false, held_max }
    }

    /// Nothing is known any more.
    pub(super) fn forget(&mut self) {
        self.entries = VecDeque::new();
        (self.size, self.bound, self.continues) = (0, None, true);
    }

    /// Memory held, bytes.
    pub(super) fn held_bytes(&self) -> usize {
        let strings: usize = self.entries.iter().map(|entry| entry.bytes.len()).sum();
        strings + self.entries.capacity() * size_of::<Entry>()
    }

    /// What an index stands for.
    pub(super) fn find(&self, index: u32) -> Result<Found<'_>, Error> {
        let Some(at) = index.checked_sub(DYNAMIC_START) else {
            let at = index.checked_sub(1).ok_or(Error::Index)?;
            let (name, value) = STATIC[at as usize];
            return Ok((Some(name.as_bytes()), Some(value.as_bytes())));
        };
        if let Some(entry) = self.entries.get(at as usize) {
            let (name, value) = entry.bytes.split_at(entry.name_bytes.unwrap_or(0));
            return Ok((entry.name_bytes.map(|_| name), Some(value)));
        }
        let size = (u64::from(at) + 1) * ENTRY_BYTES as u64;
        if self.continues && size <= self.bound.map_or(TABLE_BYTES_MAX, u64::from) {
            return Ok((None, None));
        }
        Err(Error::Index)
    }

    /// A new entry (RFC 7541, 4.4); `None` for a name that is not known.
    pub(super) fn insert(&mut self, name: Option<&[u8]>, value: &[u8]) {
        let entry = Entry::new(name, value);
        self.add(entry);
    }

    /// A new entry with the name of another, which it may push out.
    pub(super) fn insert_named_as(&mut self, index: u32, value: &[u8]) -> Result<(), Error> {
        let entry = Entry::new(self.find(index)?.0, value);
        self.add(entry);
        Ok(())
    }

    fn add(&mut self, entry: Entry) {
        self.size += entry.bytes.len() + ENTRY_BYTES;
        self.entries.push_front(entry);
        self.evict();
    }

    /// The encoder's bound changes (RFC 7541, 4.3).
    pub(super) fn bound(&mut self, bound: u32) {
        self.bound = Some(bound);
        self.evict();
    }

    fn evict(&mut self) {
        if let Some(bound) = self.bound {
            while self.size > bound as usize {
                self.drop_oldest();
                self.continues = false;
            }
            // No room for another entry behind these.
            self.continues &= self.size + ENTRY_BYTES <= bound as usize;
        }
        while self.size > self.held_max {
            self.drop_oldest();
            self.continues = true;
        }
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
    }

    fn drop_oldest(&mut self) {
        match self.entries.pop_back() {
            Some(entry) => self.size -= entry.bytes.len() + ENTRY_BYTES,
            None => self.size = 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(table: &Table, index: u32) -> (String, String) {
        let (name, value) = table.find(index).unwrap();
        let text = |bytes: Option<&[u8]>| {
            bytes.map_or("?".into(), |bytes| String::from_utf8_lossy(bytes).into_owned())
        };
        (text(name), text(value))
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.into(), value.into())
    }

    #[test]
    fn static_entries_come_first() {
        let table = Table::new(4096, 65_536);
        assert!(table.find(0).is_err());
        assert_eq!(known(&table, 2), pair(":method", "GET"));
        assert_eq!(known(&table, 61), pair("www-authenticate", ""));
        assert!(table.find(62).is_err());
    }

    #[test]
    fn the_oldest_go_first_and_a_large_one_empties_the_table() {
        let mut table = Table::new(100, 65_536);
        table.insert(Some(b"a"), b"1");
        table.insert(Some(b"b"), b"2");
        assert_eq!((known(&table, 62), known(&table, 63)), (pair("b", "2"), pair("a", "1")));
        table.insert(Some(b"c"), b"3");
        assert_eq!((known(&table, 62), known(&table, 63)), (pair("c", "3"), pair("b", "2")));
        assert!(table.find(64).is_err());
        table.insert(Some(b"large"), &[b'x'; 64]);
        assert!(table.find(62).is_err());
        assert_eq!((table.size, table.held_bytes()), (0, 0));
    }

    #[test]
    fn what_lies_behind_is_unknown_until_there_is_no_room_for_it() {
        let mut table = Table::new(4096, 65_536);
        table.insert(Some(b"a"), b"1");
        table.forget();
        assert_eq!(known(&table, 62), pair("?", "?"));
        assert!(table.find(62 + 32_768).is_err(), "no table is so large");
        table.insert(Some(b"b"), b"2");
        table.insert(None, b"3");
        assert_eq!(known(&table, 62), pair("?", "3"));
        assert_eq!((known(&table, 63), known(&table, 64)), (pair("b", "2"), pair("?", "?")));
        table.bound(67 + 32);
        assert_eq!(known(&table, 64), pair("?", "?"));
        assert!(table.find(65).is_err());
        table.bound(67 + 31);
        assert!(table.find(64).is_err());
        assert_eq!(known(&table, 63), pair("b", "2"));
        table.forget();
        table.bound(0);
        assert!(table.find(62).is_err());
    }

    #[test]
    fn what_is_held_is_bounded_and_the_rest_is_unknown() {
        let mut table = Table::new(1 << 30, 100);
        for value in [b"1", b"2", b"3"] {
            table.insert(Some(b"n"), value);
        }
        assert_eq!((known(&table, 63), known(&table, 64)), (pair("n", "2"), pair("?", "?")));
        table.insert(Some(b"n"), &[b'x'; 200]);
        assert_eq!((known(&table, 62), table.held_bytes()), (pair("?", "?"), 0));
    }
}
