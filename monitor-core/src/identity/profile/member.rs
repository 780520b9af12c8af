//! Where a member stands in JSON: `params.apiKey`, `args[0].apiKey`, `[1]`.

use crate::json::Value;

/// Steps of a path: no message in use nests deeper where it says who asks or how it ended.
const STEPS_MAX: usize = 4;

/// A path into JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::identity) struct Member(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(Box<[u8]>),
    Element(usize),
}

impl Member {
    /// `Err` says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Member, &'static str> {
        let mut steps = Vec::new();
        for part in text.split('.') {
            let (name, mut rest) = part.split_at(part.find('[').unwrap_or(part.len()));
            if !name.is_empty() {
                steps.push(Step::Name(name.as_bytes().into()));
            } else if rest.is_empty() {
                return Err("an empty name: write a path such as `params.apiKey` or `args[0]`");
            }
            while let Some(inner) = rest.strip_prefix('[') {
                let Some((number, after)) = inner.split_once(']') else {
                    return Err("a bracket is not closed: write `args[0]`");
                };
                let Ok(number @ 0..=15) = number.parse() else {
                    return Err("not a place in a list: write a number from 0 to 15");
                };
                steps.push(Step::Element(number));
                rest = after;
            }
            if !rest.is_empty() {
                return Err("nothing but a dot can follow a bracket: write `args[0].apiKey`");
            }
        }
        if steps.len() > STEPS_MAX {
            return Err("a path has at most four steps");
        }
        Ok(Member(steps))
    }

    /// What stands there.
    pub(in crate::identity) fn of<'t>(&self, value: Value<'t>) -> Option<Value<'t>> {
        self.0.iter().try_fold(value, |value, step| match step {
            Step::Name(sought) => {
                value.members().find(|(name, _)| *name == &sought[..]).map(|(_, value)| value)
            }
            Step::Element(number) => value.elements().nth(*number),
        })
    }

    /// The name of the first step: where nothing has it, nothing is there.
    pub(in crate::identity) fn first(&self) -> &[u8] {
        match self.0.first() {
            Some(Step::Name(name)) => name,
            Some(Step::Element(_)) | None => b"",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_values() {
        let text = br#"{"a":{"b":[{"c":1},"x"]},"e":[2,3]}"#;
        let at = |path: &str| {
            let value = Member::parse(path).unwrap().of(Value::of(text).unwrap())?;
            Some(String::from_utf8_lossy(value.raw).into_owned())
        };
        assert_eq!(at("a.b[0].c").as_deref(), Some("1"));
        assert_eq!(at("a.b[1]").as_deref(), Some("x"));
        assert_eq!(at("e[1]").as_deref(), Some("3"));
        assert_eq!(at("e[2]"), None);
        assert_eq!(at("a.x"), None);
        assert_eq!(at("a.b.c"), None);
        let list = Value::of(br#"["error",10100]"#).unwrap();
        assert_eq!(Member::parse("[1]").unwrap().of(list).unwrap().raw, b"10100");
    }

    #[test]
    fn a_bad_path_says_its_mend() {
        for path in ["", "a..b", "a[", "a[x]", "a[16]", "a[0]b", "a.b.c.d.e"] {
            assert!(Member::parse(path).is_err(), "{path}");
        }
    }
}
