//! What the parameters of a request are called: those of its query, and the fields of its body.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ApiCall;
use crate::ascii;

/// Names of one request that are looked at: three times what orders have.
pub const PARAMETERS_MAX: usize = 32;

/// Names of the fields of a body, in its order. What is no plain name, or looks like a secret, is
/// [`Fields::ODD`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields(Arc<str>);

impl Fields {
    /// Stands for a name that is not shown.
    pub const ODD: &'static str = "?";

    /// From names with commas between them.
    pub(crate) fn new(joined: Arc<str>) -> Fields {
        Fields(joined)
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.0.split(',').filter(|name| !name.is_empty())
    }
}

impl<S: AsRef<str>> FromIterator<S> for Fields {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Fields {
        let mut joined = String::new();
        for name in names {
            if !joined.is_empty() {
                joined.push(',');
            }
            joined.push_str(name.as_ref());
        }
        Fields(joined.into())
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
        Vec::<String>::deserialize(deserializer).map(Fields::from_iter)
    }
}

impl ApiCall {
    /// Names of parameters: of the query, then of the body's fields; of a list, its name.
    pub fn parameters(&self) -> impl Iterator<Item = &str> + Clone {
        let target = self.request.as_ref().map_or("", |request| &request.target);
        let query = memchr::memchr(b'?', target.as_bytes()).map_or("", |at| &target[at + 1..]);
        let names = Query { rest: Some(query) }.take(PARAMETERS_MAX);
        let fields = self.detail.as_ref().and_then(|detail| detail.fields.as_ref());
        names.chain(fields.into_iter().flat_map(Fields::names)).filter(|name| !name.is_empty())
    }
}

/// Names in a query; of a list, its name.
#[derive(Clone)]
struct Query<'a> {
    rest: Option<&'a str>,
}

impl<'a> Iterator for Query<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest?;
        let bytes = rest.as_bytes();
        let mark = |from: usize| {
            let plain = bytes[from..].iter().position(|byte| MARKED[usize::from(*byte)]);
            plain.map(|plain| from + plain)
        };
        let mut end = mark(0);
        while let Some(at) = end
            && bytes[at] == b'%'
            && !is_bracket(&bytes[at..])
        {
            end = mark(at + 1);
        }
        let end = end.unwrap_or(bytes.len());
        let next = memchr::memchr(b'&', &bytes[end..]);
        self.rest = next.map(|at| &rest[end + at + 1..]);
        Some(&rest[..end])
    }
}

/// Bytes that may end a name.
const MARKED: [bool; 256] = ascii::marked(b"=&[%");

/// Whether there is a bracket, as it is or percent-encoded.
fn is_bracket(bytes: &[u8]) -> bool {
    bytes.first() == Some(&b'[') || bytes.get(..3).is_some_and(|it| it.eq_ignore_ascii_case(b"%5B"))
}

/// The name of a list of which one element is given: `ids[0]`, `ids%5B%5D`. It is cut at a bracket, so
/// that what is left is still text.
pub(crate) fn list_name(name: &[u8]) -> &[u8] {
    let mut marks = memchr::memchr2_iter(b'[', b'%', name);
    &name[..marks.find(|at| is_bracket(&name[*at..])).unwrap_or(name.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_one_name() {
        for name in ["ids", "ids[]", "ids[0]", "ids%5B%5d", "ids%5b3"] {
            assert_eq!(list_name(name.as_bytes()), b"ids");
        }
        assert_eq!(list_name(b"a%20b"), b"a%20b");
        assert_eq!(list_name(b"[k_00]"), b"");
        assert_eq!(list_name(b"%5"), b"%5");
    }

    #[test]
    fn a_query_has_names() {
        for (query, names) in [
            ("", &[""][..]),
            ("a=1&b=2", &["a", "b"]),
            ("a&b", &["a", "b"]),
            ("ids[]=1&ids%5b0%5D=2&c%20=x=y", &["ids", "ids", "c%20"]),
            ("&=1&é=[&x", &["", "", "é", "x"]),
        ] {
            let seen: Vec<&str> = Query { rest: Some(query) }.collect();
            assert_eq!(seen, names, "{query}");
        }
    }

    #[test]
    fn fields_are_a_list_in_json() {
        let fields = Fields::from_iter(["symbol", "side"]);
        let json = serde_json::to_string(&fields).unwrap();
        assert_eq!(json, r#"["symbol","side"]"#);
        assert_eq!(serde_json::from_str::<Fields>(&json).unwrap(), fields);
        assert_eq!(Fields::from_iter(Vec::<&str>::new()).names().count(), 0);
    }
}
