//! Header blocks to fields (RFC 7541, 6).

use super::huffman;
use super::table::Table;

/// The table's bound before either side has said anything (RFC 9113, 6.5.2).
const TABLE_BYTES_DEFAULT: u32 = 4096;

/// Continuation bytes of an integer: five hold more than 32 bits.
const INTEGER_BYTES_MAX: u32 = 5;

/// Bounds on what a decoder holds and believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Entries of the table that are held; those beyond are unknown.
    pub table_bytes_max: usize,
    /// A string on the wire.
    pub string_bytes_max: usize,
}

/// A header field. It may hold a credential, so it is not printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// `None` when the block refers to an entry that was not seen.
    pub name: Option<&'a [u8]>,
    /// `None` when the block refers to an entry that was not seen.
    pub value: Option<&'a [u8]>,
}

/// Why a block cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It ends within a field.
    #[error("a header block that ends within a field")]
    Truncated,
    /// An index beyond the table, or 0.
    #[error("an index beyond the table")]
    Index,
    /// An integer that does not fit 32 bits.
    #[error("an integer that is too large")]
    Integer,
    /// A string that is no Huffman code.
    #[error("a Huffman string with a wrong end")]
    Huffman,
    /// A string that is longer than the bound.
    #[error("a string that is too long")]
    StringTooLong,
    /// The table's bound changes after a field.
    #[error("a table size update after a field")]
    LateUpdate,
    /// A bound larger than the other side allows.
    #[error("a table size update beyond what the other side allows")]
    LargeUpdate,
}

/// The decoding side of one direction.
pub struct Decoder {
    table: Table,
    bounds: Bounds,
    /// The largest bound that the other side has allowed; `None` when that was not seen.
    allowed: Option<u32>,
    /// A field of the present block has been read.
    in_block: bool,
}

/// A string in a block: where it stands, and whether it is coded.
struct Literal<'b> {
    wire: &'b [u8],
    coded: bool,
}

/// Reads in a block; `None` where it ends too early.
struct Cursor<'b> {
    rest: &'b [u8],
}

impl Decoder {
    /// At the beginning of a connection.
    pub fn new(bounds: Bounds) -> Decoder {
        Decoder {
            table: Table::new(TABLE_BYTES_DEFAULT, bounds.table_bytes_max),
            bounds,
            allowed: Some(TABLE_BYTES_DEFAULT),
            in_block: false,
        }
    }

    /// Header blocks were missed: nothing of the table is known any more, nor its bound.
    pub fn forget(&mut self) {
        self.table.forget();
        self.in_block = false;
    }

    /// The other side may have allowed anything.
    pub fn forget_allowed(&mut self) {
        self.allowed = None;
    }

    /// The other side allows a table of this size (`SETTINGS_HEADER_TABLE_SIZE`). When the encoder
    /// takes it up is not known, so that what was allowed before stays allowed.
    pub fn allow(&mut self, table_bytes: u32) {
        self.allowed = self.allowed.map(|allowed| allowed.max(table_bytes));
    }

    /// Memory held, bytes.
    pub fn held_bytes(&self) -> usize {
        self.table.held_bytes()
    }

    /// Reads the fields of a whole block.
    pub fn decode(&mut self, block: &[u8], sink: impl FnMut(Field<'_>)) -> Result<(), Error> {
        self.read(block, true, sink).map(drop)
    }

    /// Reads the fields that are whole, and says how many bytes they took; the rest is to be given
    /// again with what follows. `is_last`: nothing follows in this block. After an error the rest of
    /// the block cannot be read, and what it did to the table is unknown.
    pub fn read(
        &mut self,
        bytes: &[u8],
        is_last: bool,
        mut sink: impl FnMut(Field<'_>),
    ) -> Result<usize, Error> {
        let mut cursor = Cursor { rest: bytes };
        let mut scratch = Vec::new();
        loop {
            let whole = cursor.rest;
            let read = match self.field(&mut cursor, &mut scratch, &mut sink) {
                Ok(Some(())) => continue,
                Ok(None) if is_last && !whole.is_empty() => Err(Error::Truncated),
                Ok(None) => Ok(bytes.len() - whole.len()),
                Err(error) => Err(error),
            };
            if is_last {
                self.in_block = false;
            }
            if read.is_err() {
                self.forget();
            }
            return read;
        }
    }

    /// Reads one field, or a change of the bound.
    fn field(
        &mut self,
        cursor: &mut Cursor<'_>,
        scratch: &mut Vec<u8>,
        sink: &mut impl FnMut(Field<'_>),
    ) -> Result<Option<()>, Error> {
        let Some(&first) = cursor.rest.first() else { return Ok(None) };
        if first & 0x80 != 0 {
            let Some(index) = cursor.integer(7)? else { return Ok(None) };
            let (name, value) = self.table.find(index)?;
            sink(Field { name, value });
            self.in_block = true;
            return Ok(Some(()));
        }
        if first & 0xe0 == 0x20 {
            let Some(bound) = cursor.integer(5)? else { return Ok(None) };
            return self.update(bound).map(Some);
        }
        let inserts = first & 0x40 != 0;
        let Some(index) = cursor.integer(if inserts { 6 } else { 4 })? else { return Ok(None) };
        let name = match index {
            0 => match cursor.literal(self.bounds.string_bytes_max)? {
                Some(name) => Some(name),
                None => return Ok(None),
            },
            _ => None,
        };
        let Some(value) = cursor.literal(self.bounds.string_bytes_max)? else { return Ok(None) };
        scratch.clear();
        if let Some(name) = &name {
            name.decode(scratch)?;
        }
        let name_bytes = scratch.len();
        value.decode(scratch)?;
        let (coded_name, coded_value) = scratch.split_at(name_bytes);
        let value = value.text(coded_value);
        match &name {
            Some(name) => {
                let name = name.text(coded_name);
                sink(Field { name: Some(name), value: Some(value) });
                if inserts {
                    self.table.insert(Some(name), value);
                }
            }
            None => {
                let (name, _) = self.table.find(index)?;
                sink(Field { name, value: Some(value) });
                if inserts {
                    self.table.insert_named_as(index, value)?;
                }
            }
        }
        self.in_block = true;
        Ok(Some(()))
    }

    fn update(&mut self, bound: u32) -> Result<(), Error> {
        if self.in_block {
            return Err(Error::LateUpdate);
        }
        if self.allowed.is_some_and(|allowed| bound > allowed) {
            return Err(Error::LargeUpdate);
        }
        self.table.bound(bound);
        Ok(())
    }
}

impl<'b> Cursor<'b> {
    /// An integer whose first byte has a prefix of so many bits (RFC 7541, 5.1).
    fn integer(&mut self, prefix_bits: u32) -> Result<Option<u32>, Error> {
        let Some((first, mut rest)) = self.rest.split_first() else { return Ok(None) };
        let prefix_max = (1_u32 << prefix_bits) - 1;
        let mut value = u64::from(u32::from(*first) & prefix_max);
        if value == u64::from(prefix_max) {
            for at in 0.. {
                if at == INTEGER_BYTES_MAX {
                    return Err(Error::Integer);
                }
                let Some((byte, after)) = rest.split_first() else { return Ok(None) };
                rest = after;
                value += u64::from(byte & 0x7f) << (7 * at);
                if byte & 0x80 == 0 {
                    break;
                }
            }
        }
        self.rest = rest;
        u32::try_from(value).map(Some).map_err(|_| Error::Integer)
    }

    /// A string (RFC 7541, 5.2).
    fn literal(&mut self, bytes_max: usize) -> Result<Option<Literal<'b>>, Error> {
        let Some(first) = self.rest.first() else { return Ok(None) };
        let coded = first & 0x80 != 0;
        let Some(length) = self.integer(7)? else { return Ok(None) };
        if length as usize > bytes_max {
            return Err(Error::StringTooLong);
        }
        let Some((wire, rest)) = self.rest.split_at_checked(length as usize) else {
            return Ok(None);
        };
        self.rest = rest;
        Ok(Some(Literal { wire, coded }))
    }
}

impl Literal<'_> {
    /// Appends what is coded to `out`.
    fn decode(&self, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.coded {
            huffman::decode(self.wire, out).map_err(|_| Error::Huffman)?;
        }
        Ok(())
    }

    /// Its text, given what [`Literal::decode`] made of it.
    fn text<'t>(&'t self, decoded: &'t [u8]) -> &'t [u8] {
        if self.coded { decoded } else { self.wire }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { table_bytes_max: 65_536, string_bytes_max: 16_384 };

    fn bytes(hex: &str) -> Vec<u8> {
        let hex: String = hex.split_whitespace().collect();
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    fn text(part: Option<&[u8]>) -> String {
        part.map_or("?".into(), |part| String::from_utf8_lossy(part).into_owned())
    }

    fn lines(decoder: &mut Decoder, hex: &str) -> Result<Vec<String>, Error> {
        let mut lines = Vec::new();
        decoder.decode(&bytes(hex), |field| {
            lines.push(format!("{}: {}", text(field.name), text(field.value)));
        })?;
        Ok(lines)
    }

    fn check(decoder: &mut Decoder, hex: &str, expected: &[&str]) {
        assert_eq!(lines(decoder, hex).unwrap(), expected, "{hex}");
    }

    /// RFC 7541, C.4: three requests with Huffman coding.
    const REQUESTS: [(&str, [&str; 5]); 3] = [
        (
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            [":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com", ""],
        ),
        (
            "8286 84be 5886 a8eb 1064 9cbf",
            [
                ":method: GET",
                ":scheme: http",
                ":path: /",
                ":authority: www.example.com",
                "cache-control: no-cache",
            ],
        ),
        (
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            [
                ":method: GET",
                ":scheme: https",
                ":path: /index.html",
                ":authority: www.example.com",
                "custom-key: custom-value",
            ],
        ),
    ];

    #[test]
    fn the_requests_of_the_rfc() {
        let mut decoder = Decoder::new(BOUNDS);
        for (hex, expected) in REQUESTS {
            let expected: Vec<&str> =
                expected.into_iter().filter(|line| !line.is_empty()).collect();
            check(&mut decoder, hex, &expected);
        }
    }

    #[test]
    fn who_comes_late_knows_what_comes_later() {
        let mut decoder = Decoder::new(BOUNDS);
        decoder.forget();
        check(
            &mut decoder,
            REQUESTS[1].0,
            &[":method: GET", ":scheme: http", ":path: /", "?: ?", "cache-control: no-cache"],
        );
        check(
            &mut decoder,
            REQUESTS[2].0,
            &[
                ":method: GET",
                ":scheme: https",
                ":path: /index.html",
                "?: ?",
                "custom-key: custom-value",
            ],
        );
        check(
            &mut decoder,
            "be bf c0",
            &["custom-key: custom-value", "cache-control: no-cache", "?: ?"],
        );
        // A literal whose name is that of an unknown entry, inserted and referred to.
        check(&mut decoder, "7f 01 01 61 be", &["?: a", "?: a"]);
        // The table is emptied: what is referred to from then on must have been seen.
        check(&mut decoder, "20 3f e1 1f 40 01 61 01 62 be", &["a: b", "a: b"]);
        assert_eq!(lines(&mut decoder, "bf"), Err(Error::Index));
    }

    #[test]
    fn what_no_encoder_writes() {
        let check = |hex: &str, error| {
            let mut decoder = Decoder::new(BOUNDS);
            assert_eq!(lines(&mut decoder, hex), Err(error), "{hex}");
            // After that nothing is sure.
            assert_eq!(lines(&mut decoder, "be").unwrap(), ["?: ?"], "{hex}");
        };
        check("80", Error::Index);
        check("be", Error::Index);
        check("7e 01 61", Error::Index);
        check("ff", Error::Truncated);
        check("40 01", Error::Truncated);
        check("40 01 61", Error::Truncated);
        check("00 85 ff ff ff ff ff 00", Error::Huffman);
        check("ff 80 80 80 80 80 00", Error::Integer);
        check("ff ff ff ff ff 1f", Error::Integer);
        check("00 7f 82 7f 61", Error::StringTooLong);
        check("82 20", Error::LateUpdate);
        check("3f e2 1f", Error::LargeUpdate);
        let mut decoder = Decoder::new(BOUNDS);
        decoder.allow(8192);
        decoder.allow(100);
        assert_eq!(lines(&mut decoder, "3f e1 3f").unwrap(), [""; 0]);
    }

    #[test]
    fn pieces_give_the_same_fields() {
        for size in 1..20 {
            let mut decoder = Decoder::new(BOUNDS);
            for (hex, expected) in REQUESTS {
                let block = bytes(hex);
                let (mut seen, mut waiting) = (Vec::new(), Vec::new());
                for (at, piece) in block.chunks(size).enumerate() {
                    waiting.extend_from_slice(piece);
                    let is_last = (at + 1) * size >= block.len();
                    let used = decoder.read(&waiting, is_last, |field| {
                        seen.push(format!("{}: {}", text(field.name), text(field.value)));
                    });
                    waiting.drain(..used.unwrap());
                }
                let expected = expected.into_iter().filter(|line| !line.is_empty());
                assert_eq!(seen, expected.collect::<Vec<_>>());
                assert!(waiting.is_empty());
            }
        }
    }
}
