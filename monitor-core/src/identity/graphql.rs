//! What a GraphQL document asks for: the fields at its root, whatever it is called and however they are
//! wrapped (specification of October 2021, 2). It is read as it stands in JSON, with its escapes.

use smallvec::SmallVec;

/// Root fields that are looked at: pages ask for five or six things at once.
const FIELDS_MAX: usize = 16;

/// Operations and fragments of one document that are looked at.
const DEFINITIONS_MAX: usize = 16;

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Document<'t> {
    /// It changes something.
    pub(super) is_mutation: bool,
    /// What the operation calls itself.
    pub(super) name: Option<&'t [u8]>,
    /// The fields at its root.
    pub(super) fields: SmallVec<[&'t [u8]; 4]>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Query,
    Mutation,
    Fragment,
}

struct Definition<'t> {
    kind: Kind,
    name: Option<&'t [u8]>,
    fields: SmallVec<[&'t [u8]; 4]>,
    /// Fragments at its root.
    spreads: SmallVec<[&'t [u8]; 2]>,
}

impl<'t> Document<'t> {
    /// `None` when it is no document. `chosen`: the operation that is to run, where there are several.
    pub(super) fn read(text: &'t [u8], chosen: Option<&[u8]>) -> Option<Document<'t>> {
        let mut tokens = Tokens { rest: text };
        let mut definitions = SmallVec::<[Definition<'t>; 2]>::new();
        while definitions.len() < DEFINITIONS_MAX
            && let Some(definition) = tokens.definition()
        {
            definitions.push(definition);
        }
        let is_operation = |it: &&Definition<'t>| it.kind != Kind::Fragment;
        let is_chosen = |it: &&Definition<'t>| it.name == chosen;
        let operations = || definitions.iter().filter(is_operation);
        let first = operations().find(is_chosen).or_else(|| operations().next())?;
        let mut document = Document {
            is_mutation: first.kind == Kind::Mutation,
            name: first.name,
            fields: first.fields.clone(),
        };
        // Fragments may hold fragments; each counts once.
        let mut spreads = first.spreads.clone();
        let mut at = 0;
        while let Some(sought) = spreads.get(at).copied() {
            at += 1;
            let is_it = |it: &&Definition<'t>| it.kind == Kind::Fragment && it.name == Some(sought);
            if let Some(fragment) = definitions.iter().find(is_it) {
                let room = FIELDS_MAX.saturating_sub(document.fields.len());
                document.fields.extend(fragment.fields.iter().take(room).copied());
                for other in &fragment.spreads {
                    if spreads.len() < DEFINITIONS_MAX && !spreads.contains(other) {
                        spreads.push(other);
                    }
                }
            }
        }
        Some(document)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Token<'t> {
    Name(&'t [u8]),
    /// `...`
    Spread,
    Mark(u8),
}

struct Tokens<'t> {
    rest: &'t [u8],
}

impl<'t> Tokens<'t> {
    /// The next operation or fragment; `None` where there is none.
    fn definition(&mut self) -> Option<Definition<'t>> {
        let mut definition = Definition {
            kind: Kind::Query,
            name: None,
            fields: SmallVec::new(),
            spreads: SmallVec::new(),
        };
        match self.next()? {
            Token::Mark(b'{') => self.selection(&mut definition),
            Token::Name(kind @ (b"query" | b"mutation" | b"subscription" | b"fragment")) => {
                definition.kind = match kind {
                    b"mutation" => Kind::Mutation,
                    b"fragment" => Kind::Fragment,
                    _ => Kind::Query,
                };
                self.head(&mut definition)?;
                self.selection(&mut definition);
            }
            Token::Name(_) | Token::Spread | Token::Mark(_) => return None,
        }
        Some(definition)
    }

    /// Name, variables and directives, up to the brace; `None` when there is none.
    fn head(&mut self, definition: &mut Definition<'t>) -> Option<()> {
        let mut is_first = true;
        loop {
            match self.next()? {
                Token::Mark(b'{') => return Some(()),
                Token::Mark(b'(') => self.pass(b'(', b')'),
                Token::Name(name) if is_first => definition.name = Some(name),
                Token::Name(_) | Token::Spread | Token::Mark(_) => {}
            }
            is_first = false;
        }
    }

    /// Fields behind an open brace, to the one that closes it. Fragments without a name are looked into.
    fn selection(&mut self, definition: &mut Definition<'t>) {
        // Braces that are open: what stands in fragments stands at the root.
        let mut open = 1_u32;
        // A fragment without a name has begun, whose brace may follow; and what may follow a mark.
        let (mut wraps, mut is_spread, mut is_directive) = (false, false, false);
        while open > 0
            && let Some(token) = self.next()
        {
            let (after_spread, after_at) = (is_spread, is_directive);
            (is_spread, is_directive) = (token == Token::Spread, token == Token::Mark(b'@'));
            match token {
                Token::Spread => wraps = true,
                Token::Mark(b'(') => self.pass(b'(', b')'),
                Token::Mark(b'{') if wraps => (open, wraps) = (open + 1, false),
                // Of a field.
                Token::Mark(b'{') => self.pass(b'{', b'}'),
                Token::Mark(b'}') => (open, wraps) = (open - 1, false),
                // What stood before was another name for it.
                Token::Mark(b':') => {
                    definition.fields.pop();
                }
                Token::Name(_) if after_at => {}
                // A type follows.
                Token::Name(b"on") if after_spread => {
                    self.next();
                }
                Token::Name(name) if after_spread => {
                    wraps = false;
                    if definition.spreads.len() < DEFINITIONS_MAX {
                        definition.spreads.push(name);
                    }
                }
                Token::Name(name) => {
                    wraps = false;
                    if definition.fields.len() < FIELDS_MAX {
                        definition.fields.push(name);
                    }
                }
                Token::Mark(_) => {}
            }
        }
    }

    /// To the mark that closes one that was met.
    fn pass(&mut self, opens: u8, closes: u8) {
        let mut open = 1_u32;
        while open > 0
            && let Some(token) = self.next()
        {
            open += u32::from(token == Token::Mark(opens));
            open -= u32::from(token == Token::Mark(closes));
        }
    }

    fn next(&mut self) -> Option<Token<'t>> {
        loop {
            let (first, rest) = self.rest.split_first()?;
            match *first {
                b'\\' if rest.first() == Some(&b'"') => self.pass_string(),
                // Of JSON: line ends, tabs.
                b'\\' => self.rest = rest.get(1..).unwrap_or_default(),
                b'#' => self.pass_comment(),
                b'.' => {
                    let dots = self.rest.iter().take_while(|byte| **byte == b'.').count();
                    self.rest = &self.rest[dots..];
                    return Some(Token::Spread);
                }
                byte if is_name(byte) => {
                    let len = self.rest.iter().take_while(|byte| is_name(**byte)).count();
                    let (name, rest) = self.rest.split_at(len);
                    self.rest = rest;
                    return Some(Token::Name(name));
                }
                byte => {
                    self.rest = rest;
                    if b"{}():@!$=[]|&".contains(&byte) {
                        return Some(Token::Mark(byte));
                    }
                }
            }
        }
    }

    /// From an escaped quotation mark behind the next one. Three of them are one such mark.
    fn pass_string(&mut self) {
        let mark = if self.rest.starts_with(br#"\"\"\""#) { &br#"\"\"\""#[..] } else { br#"\""# };
        let inside = &self.rest[mark.len()..];
        let mut at = 0;
        while let Some(backslash) = memchr::memchr(b'\\', &inside[at..]) {
            at += backslash;
            if inside[at..].starts_with(mark) {
                self.rest = &inside[at + mark.len()..];
                return;
            }
            // `\\\"` is a mark that is escaped in the document too.
            at += if inside[at..].starts_with(br#"\\\""#) { 4 } else { 2 };
            if at >= inside.len() {
                break;
            }
        }
        self.rest = &[];
    }

    fn pass_comment(&mut self) {
        let ends = |rest: &[u8]| rest.starts_with(b"\\n") || rest.starts_with(b"\\r");
        while !self.rest.is_empty() && !ends(self.rest) {
            self.rest = &self.rest[1..];
        }
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, chosen: Option<&str>) -> String {
        let Some(it) = Document::read(text.as_bytes(), chosen.map(str::as_bytes)) else {
            return "none".into();
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields: Vec<String> = it.fields.iter().map(|field| text(field)).collect();
        let kind = if it.is_mutation { "mutation" } else { "query" };
        format!("{kind} {}: {}", it.name.map(text).unwrap_or_default(), fields.join(" "))
    }

    #[test]
    fn fields_at_the_root_are_what_is_asked_for() {
        for (text, expected) in [
            ("{ me { id } orders(first: 3) { id } }", "query : me orders"),
            ("query { balances { id } }", "query : balances"),
            (
                r"\n  mutation Place($a: In = {b: 1}) @x(y: {z: 1}) {\n place(a: $a) { id } }",
                "mutation Place: place",
            ),
            ("mutation { createWithdrawal(amount: 1) { id } }", "mutation : createWithdrawal"),
            ("mutation{a:withdraw(x:{y:1}){id}b:cancel}", "mutation : withdraw cancel"),
            (
                "mutation { ... on Mutation { withdraw { id } } ... { cancel } }",
                "mutation : withdraw cancel",
            ),
            (
                "mutation { ...F } fragment F on Mutation { withdraw ...G } fragment G on Mutation { x }",
                "mutation : withdraw x",
            ),
            ("mutation { ... on M @include(if: true) { withdraw } me }", "mutation : withdraw me"),
            ("mutation { me @skip(if: true) { id } x }", "mutation : me x"),
            (
                r#"mutation { note(t: \"a } { withdraw\", u: \"\"\"b\" } \"\"\") { id } x }"#,
                "mutation : note x",
            ),
            (r#"mutation { note(t: \"a \\\" } b\") { id } x }"#, "mutation : note x"),
            (r"{ # comment { x }\n me }", "query : me"),
            ("subscription { trades { id } }", "query : trades"),
            ("", "none"),
            ("select * from x", "none"),
            ("query", "none"),
            ("fragment F on Q { x }", "none"),
        ] {
            assert_eq!(read(text, None), expected, "{text}");
        }
        let two = "query A { me } mutation B { withdraw }";
        assert_eq!(read(two, Some("B")), "mutation B: withdraw");
        assert_eq!(read(two, Some("A")), "query A: me");
        assert_eq!(read(two, None), "query A: me");
    }

    #[test]
    fn hostile_documents_end() {
        let deep = "{a".repeat(100_000);
        read(&deep, None);
        let many = format!("mutation {{ {} }}", "a ".repeat(100_000));
        assert!(read(&many, None).len() < 100);
        let fragments = "fragment F on M { ...F ...G }".repeat(1_000);
        assert_eq!(read(&format!("mutation {{ ...F }} {fragments}"), None), "mutation : ");
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[{}()a:@.\"\\\\#n \\[\\]!$=,m]{0,120}") {
            read(&text, None);
            read(&format!("mutation {{ {text}"), Some("a"));
        }
    }
}
