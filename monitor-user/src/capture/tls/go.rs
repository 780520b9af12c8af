//! The functions of Go's crypto/tls in a program, by the table of functions that every Go program has,
//! also a stripped one.
//!
//! The table's layout: `runtime/symtab.go` of Go 1.18 and later, `pcHeader` and `_func`.

use anyhow::{Context as _, bail, ensure};
use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use memchr::memmem;

/// Where they are in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Go {
    /// What sends a record, behind its look at the stack.
    pub write: u64,
    /// What reads one, the same.
    pub read: u64,
    /// Every return of what decrypts one.
    pub decrypted: Vec<u64>,
    /// What is called for every secret, the same as the first two; `None`: it is not there.
    pub secret: Option<u64>,
}

const WRITE: &str = "crypto/tls.(*Conn).writeRecordLocked";
const READ: &str = "crypto/tls.(*Conn).readRecordOrCCS";
const DECRYPT: &str = "crypto/tls.(*halfConn).decrypt";
const SECRET: &str = "crypto/tls.(*Config).writeKeyLog";

/// Of Go 1.18, and of 1.20 and later.
const MAGICS: [u32; 2] = [0xffff_fff0, 0xffff_fff1];

/// Bytes of one function: Go's has two thousand.
const FUNCTION_BYTES_MAX: usize = 64 << 10;

/// Returns of one function: Go's has a few.
const RETURNS_MAX: usize = 32;

/// Finds them. `table` is the section of the table, `text` the address of the section of the code and
/// its bytes, `offset_of` says where in the file an address is.
///
/// # Errors
///
/// When it has crypto/tls and it cannot be seen where, or how its functions are called.
pub(super) fn functions(
    table: &[u8],
    text: (u64, &[u8]),
    offset_of: impl Fn(u64) -> Option<u64>,
) -> anyhow::Result<Option<Go>> {
    if memmem::find(table, WRITE.as_bytes()).is_none() {
        return Ok(None);
    }
    let table = Table::parse(table)?;
    let found = [WRITE, READ, DECRYPT].map(|name| table.find(name));
    let [Some(write), Some(read), Some(decrypt)] = found else {
        bail!("a version of Go's crypto/tls that is not known");
    };
    // The header says where the code begins, before Go 1.26 and unless that is relocated.
    let starts = [table.text_start, text.0];
    let looks = |start: u64| {
        let look = |function| look_at_the_stack(code(text, start, function)?);
        Some((start, [look(write)?, look(read)?, look(decrypt)?]))
    };
    let looks = starts.into_iter().find_map(looks);
    let (start, [write_look, read_look, _]) =
        looks.context("Go's functions are not where its table says")?;
    let at = |within: u64| {
        let address = start.checked_add(within);
        address.and_then(&offset_of).context("a function outside of the file")
    };
    let body = code(text, start, decrypt).context("a function outside of the code")?;
    let secret = table.find(SECRET).and_then(|function| {
        let look = look_at_the_stack(code(text, start, function)?)?;
        at(function.0 + look).ok()
    });
    let decrypted = returns(body)?.into_iter().map(|return_at| at(decrypt.0 + return_at));
    Ok(Some(Go {
        write: at(write.0 + write_look)?,
        read: at(read.0 + read_look)?,
        decrypted: decrypted.collect::<Result<_, _>>()?,
        secret,
    }))
}

/// Begin and end of a function, from the begin of the code.
type Range = (u64, u64);

fn code(text: (u64, &[u8]), start: u64, (begin, end): Range) -> Option<&[u8]> {
    let within = |at: u64| usize::try_from(start.checked_add(at)?.checked_sub(text.0)?).ok();
    text.1.get(within(begin)?..within(end)?)
}

/// Bytes of a function's begin: it compares the stack pointer with the goroutine's bound and jumps away
/// when there is no room, `CMP RSP, [R14+16]`, `JBE …`, or after `LEA R12, [RSP-…]`, `CMP R12, [R14+16]`,
/// `JBE …`. With that, arguments are in registers (since Go 1.17). `None`: it begins otherwise.
///
/// A function that jumps away, for a larger stack or to let others run, begins again afterwards. What
/// stands behind the jump is come to once a call.
fn look_at_the_stack(code: &[u8]) -> Option<u64> {
    const SMALL: [u8; 4] = [0x49, 0x3b, 0x66, 0x10];
    const LARGE: [u8; 4] = [0x4d, 0x3b, 0x66, 0x10];
    let compared = if code.starts_with(&SMALL) {
        SMALL.len()
    } else {
        let lea = match code {
            [0x4c, 0x8d, 0x64, 0x24, ..] => 5,
            [0x4c, 0x8d, 0xa4, 0x24, ..] => 8,
            _ => return None,
        };
        code.get(lea..)?.strip_prefix(&LARGE)?;
        lea + LARGE.len()
    };
    let jump = match code.get(compared..)? {
        [0x76, _, ..] => 2,
        [0x0f, 0x86, _, _, _, _, ..] => 6,
        _ => return None,
    };
    u64::try_from(compared + jump).ok()
}

/// Where a function returns, from its begin.
fn returns(code: &[u8]) -> anyhow::Result<Vec<u64>> {
    ensure!(code.len() <= FUNCTION_BYTES_MAX, "a function that is too long");
    let mut returns = Vec::new();
    for instruction in &mut Decoder::with_ip(64, code, 0, DecoderOptions::NONE) {
        ensure!(!instruction.is_invalid(), "code that cannot be read");
        if instruction.mnemonic() == Mnemonic::Ret {
            ensure!(returns.len() < RETURNS_MAX, "a function that returns in too many places");
            returns.push(instruction.ip());
        }
    }
    ensure!(!returns.is_empty(), "a function that does not return");
    Ok(returns)
}

/// Names and places of functions.
struct Table<'a> {
    bytes: &'a [u8],
    text_start: u64,
    functions: usize,
    names: usize,
    /// Pairs of where a function begins and where more about it is; one more at the end.
    places: usize,
}

impl<'a> Table<'a> {
    fn parse(bytes: &'a [u8]) -> anyhow::Result<Table<'a>> {
        let magic = word(bytes, 0).context("Go's table of functions is cut")?;
        ensure!(MAGICS.contains(&magic), "a program of Go before 1.18");
        ensure!(bytes.get(7) == Some(&8), "a program of Go for another machine");
        let field = |index: usize| {
            let bytes = bytes.get(8 * index..)?.first_chunk()?;
            Some(u64::from_le_bytes(*bytes))
        };
        let size = |index: usize| field(index).and_then(|field| usize::try_from(field).ok());
        let (Some(functions), Some(text_start), Some(names), Some(places)) =
            (size(1), field(3), size(4), size(8))
        else {
            bail!("Go's table of functions is cut");
        };
        let table = Table { bytes, text_start, functions, names, places };
        let room = bytes.len().saturating_sub(places) / 8;
        ensure!(functions < room, "Go's table of functions is cut");
        Ok(table)
    }

    /// The first function of a name.
    fn find(&self, name: &str) -> Option<Range> {
        (0..self.functions).find_map(|index| {
            let place = self.places.checked_add(8 * index)?;
            let about = self.places.checked_add(word(self.bytes, place + 4)? as usize)?;
            let named = self.names.checked_add(word(self.bytes, about.checked_add(4)?)? as usize)?;
            let rest = self.bytes.get(named..)?.strip_prefix(name.as_bytes())?;
            let begin = word(self.bytes, place)?;
            let end = word(self.bytes, place + 8)?;
            (rest.first() == Some(&0) && begin < end).then_some((begin.into(), end.into()))
        })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table with these names, one function each, of 64 bytes from `text_start` on.
    fn table(text_start: u64, names: &[&str]) -> Vec<u8> {
        let texts: Vec<u8> =
            names.iter().flat_map(|name| [name.as_bytes(), b"\0"].concat()).collect();
        let places = 72 + texts.len();
        let pairs = 8 * (names.len() + 1);
        let mut bytes = 0xffff_fff1_u32.to_le_bytes().to_vec();
        bytes.extend([0, 0, 1, 8]);
        let fields = [names.len(), 0, text_start as usize, 72, 0, 0, 0, places];
        fields.iter().for_each(|field| bytes.extend((*field as u64).to_le_bytes()));
        bytes.extend(&texts);
        (0..=names.len()).for_each(|index| {
            bytes.extend((64 * index as u32).to_le_bytes());
            bytes.extend(((pairs + 8 * index) as u32).to_le_bytes());
        });
        let mut name_at = 0_u32;
        for (index, name) in names.iter().enumerate() {
            bytes.extend((64 * index as u32).to_le_bytes());
            bytes.extend(name_at.to_le_bytes());
            name_at += name.len() as u32 + 1;
        }
        bytes
    }

    /// Functions of 64 bytes that look at the stack and return in two places.
    fn text(functions: usize) -> Vec<u8> {
        let mut one = vec![0x49, 0x3b, 0x66, 0x10, 0x76, 0x20, 0xc3];
        // A return within an immediate is none.
        one.extend([0xb8, 0xc3, 0xc3, 0xc3, 0xc3]);
        one.resize(63, 0x90);
        one.push(0xc3);
        one.repeat(functions)
    }

    const NAMES: [&str; 4] = ["main.main", WRITE, READ, DECRYPT];

    fn found(table: &[u8], text: &[u8]) -> anyhow::Result<Option<Go>> {
        functions(table, (0x1000, text), |address| address.checked_sub(0xc00))
    }

    #[test]
    fn functions_are_where_the_table_says() {
        let mut expected = Go {
            write: 0x400 + 64 + 6,
            read: 0x400 + 128 + 6,
            decrypted: vec![0x400 + 192 + 6, 0x400 + 192 + 63],
            secret: None,
        };
        // Since Go 1.26 the begin of the code is not told.
        for start in [0x1000, 0] {
            let found = found(&table(start, &NAMES), &text(4)).unwrap();
            assert_eq!(found.as_ref(), Some(&expected));
        }
        let names = [&NAMES[..], &[SECRET]].concat();
        expected.secret = Some(0x400 + 256 + 6);
        assert_eq!(found(&table(0x1000, &names), &text(5)).unwrap(), Some(expected));
    }

    #[test]
    fn every_look_at_the_stack_is_known() {
        let look = |code: &[u8]| look_at_the_stack(code);
        assert_eq!(look(&[0x49, 0x3b, 0x66, 0x10, 0x76, 1, 0x90]), Some(6));
        assert_eq!(look(&[0x49, 0x3b, 0x66, 0x10, 0x0f, 0x86, 1, 0, 0, 0]), Some(10));
        let small = [0x4c, 0x8d, 0x64, 0x24, 0xd0, 0x4d, 0x3b, 0x66, 0x10, 0x0f, 0x86, 1, 0, 0, 0];
        assert_eq!(look(&small), Some(15));
        let large =
            [0x4c, 0x8d, 0xa4, 0x24, 0, 0xff, 0xff, 0xff, 0x4d, 0x3b, 0x66, 0x10, 0x76, 0x55];
        assert_eq!(look(&large), Some(14));
        for other in [&large[..12], &small[..9], &[0x49, 0x3b, 0x66, 0x10, 0xeb, 1], &[0x55]] {
            assert_eq!(look(other), None, "{other:x?}");
        }
    }

    #[test]
    fn others_are_refused_or_have_none() {
        assert_eq!(found(&table(0x1000, &["main.main"]), &text(1)).unwrap(), None);
        let refused = |table: &[u8], text: &[u8]| found(table, text).unwrap_err().to_string();
        assert!(refused(&table(0x1000, &NAMES[..3]), &text(3)).contains("not known"));
        assert!(refused(&table(0x1000, &NAMES), &text(4)[..200]).contains("not where"));
        assert!(refused(&table(0x1000, &NAMES), &[0x90; 256]).contains("not where"));
        let mut old = table(0x1000, &NAMES);
        old[0] = 0xfa;
        assert!(refused(&old, &text(4)).contains("before 1.18"));
    }

    #[test]
    fn damaged_tables_are_no_panic() {
        let good = table(0x1000, &NAMES);
        for end in 0..good.len() {
            let _ = found(&good[..end], &text(4));
        }
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut damaged = good.clone();
                damaged[at] = value;
                let _ = found(&damaged, &text(4));
            }
        }
    }
}
