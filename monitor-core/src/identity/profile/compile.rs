//! From files to tables.

use compact_str::{CompactString, ToCompactString, format_compact};
use toml::Spanned;

use super::file::{Fault, File, KeyFile, Text};
use super::headers::Headers;
use super::member::Member;
use super::names::{Names, Parameter};
use super::{BUILTIN, Count, InRequest, Place, Profile, Profiles, Replies, Source};
use crate::identity::Style;
use crate::identity::signing::Stated;

/// Profiles at once: a style is told by a byte.
const PROFILES_MAX: usize = 200;

/// A place or name is the longest header that a server takes.
const NAME_BYTES_MAX: usize = 64;

/// A profile whose names mean the same everywhere.
const COMMON: &str = "common";

/// Everything that is wrong, or the tables.
pub(super) fn compile(others: &[(String, String)]) -> Result<Profiles, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut files: Vec<(File, Text<'_>)> = Vec::new();
    for (name, text) in others {
        let text = Text { name, text };
        match text.parse() {
            Ok(file) => match files.iter().find(|(known, _)| known.name == file.name) {
                Some((_, first)) => {
                    let what = format!("the name is used in {} too: choose another", first.name);
                    faults.push(text.fault(file.name.span().start, what));
                }
                None => files.push((file, text)),
            },
            Err(fault) => faults.push(fault),
        }
    }
    for (name, text) in BUILTIN {
        let text = Text { name, text };
        match text.parse() {
            Ok(file) if files.iter().any(|(known, _)| known.name == file.name) => {}
            Ok(file) => files.push((file, text)),
            Err(fault) => faults.push(fault),
        }
    }
    if files.len() > PROFILES_MAX
        && let Some((file, text)) = files.first()
    {
        let what = format!("{} profiles: at most {PROFILES_MAX} can be used", files.len());
        faults.push(text.fault(file.name.span().start, what));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut tables = Tables::default();
    for (number, (file, text)) in (0_u8..).zip(files) {
        tables.add(Style(number), file, &text);
    }
    if tables.faults.is_empty() { Ok(tables.finish()) } else { Err(tables.faults) }
}

#[derive(Default)]
struct Tables {
    faults: Vec<Fault>,
    list: Vec<Profile>,
    sources: Vec<Source>,
    headers: Vec<(String, InRequest)>,
    counts: Vec<(String, Count)>,
    names: Names,
    prefixes: Vec<(Box<str>, Style)>,
    hosts: Vec<(Box<str>, Style)>,
    fix_targets: Vec<(Box<str>, Style)>,
}

impl Tables {
    fn add(&mut self, style: Style, file: File, text: &Text<'_>) {
        let name = file.name.get_ref();
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 20 || !name.bytes().all(plain) {
            let what = "a name is 1 to 20 small letters, digits and dashes";
            self.faults.push(text.fault(file.name.span().start, what));
        }
        for host in &file.hosts {
            self.hosts.push((host.get_ref().to_ascii_lowercase().into(), style));
        }
        let targets = file.fix_targets.iter().map(|name| (name.as_str().into(), style));
        self.fix_targets.extend(targets);
        for path in &file.paths {
            if !path.get_ref().starts_with('/') {
                let what = format!("`{}` is no path: begin it with `/`", path.get_ref());
                self.faults.push(text.fault(path.span().start, what));
            }
            self.prefixes.push((path.get_ref().as_str().into(), style));
        }
        let is_exchange = !file.operations.is_empty() || !file.outcome.code.is_empty();
        let has_place =
            !(file.paths.is_empty() && file.hosts.is_empty() && file.fix_targets.is_empty());
        for key in &file.keys {
            self.key(style, key, has_place, text);
        }
        self.fields(style, &file);
        self.signing(&file);
        let mut profile = Profile {
            name: name.to_compact_string(),
            title: file.title.clone(),
            text: text.text.into(),
            is_exchange,
            paths: Default::default(),
            rpc: Vec::new(),
            logout: file.logout.iter().map(|name| name.as_str().into()).collect(),
            replies: Replies::default(),
        };
        for (op, rules) in &file.operations {
            for rule in rules {
                let span = rule.span().start;
                let added = match rule.get_ref().strip_prefix("rpc ") {
                    Some(name) => {
                        profile.rpc.push((name.into(), *op));
                        Ok(())
                    }
                    None => profile.paths.add(rule.get_ref(), *op),
                };
                if let Err(what) = added {
                    let what = format!("wrong rule `{}`: {what}", rule.get_ref());
                    self.faults.push(text.fault(span, what));
                }
            }
        }
        profile.replies = self.replies(&file, text);
        let counts = [
            (&file.limits.used, Count::Used),
            (&file.limits.limit, Count::Limit),
            (&file.limits.remaining, Count::Remaining),
        ];
        for (names, count) in counts {
            self.counts.extend(names.iter().map(|name| (name.clone(), count)));
        }
        self.list.push(profile);
    }

    fn key(&mut self, style: Style, key: &Spanned<KeyFile>, has_place: bool, text: &Text<'_>) {
        let at = key.span().start;
        let number = u16::try_from(self.sources.len()).unwrap_or(u16::MAX);
        let file = key.get_ref();
        let fault = match parse_place(file) {
            Ok((place, shown)) => {
                match &place {
                    Place::Header { name, .. } => {
                        self.headers.push((name.to_string(), InRequest::Key(number)));
                    }
                    Place::Query(name) | Place::Form(name) => {
                        self.names.add(name, None, Parameter::Key);
                    }
                    Place::Scheme { .. }
                    | Place::Cookie(_)
                    | Place::Fix(_)
                    | Place::Member { .. } => {}
                }
                self.sources.push(Source {
                    style,
                    place,
                    shown,
                    on_paths: file.on_paths,
                    stays: file.stays,
                    token: file.token || !file.issuer.is_empty(),
                    issuers: file.issuer.iter().map(|name| name.as_str().into()).collect(),
                });
                if file.on_paths && !has_place {
                    "`on_paths` needs `paths`, `hosts` or `fix_targets` in this profile"
                } else {
                    return;
                }
            }
            Err(fault) => fault,
        };
        self.faults.push(text.fault(at, format!("wrong key: {fault}")));
    }

    fn fields(&mut self, style: Style, file: &File) {
        let style = (file.name.get_ref() != COMMON).then_some(style);
        let lists = [
            (&file.fields.secret, Parameter::Secret),
            (&file.fields.symbol, Parameter::Symbol),
            (&file.fields.object, Parameter::Object),
            (&file.fields.account, Parameter::Account),
            (&file.fields.amount, Parameter::Amount),
        ];
        for (names, parameter) in lists {
            names.iter().for_each(|name| self.names.add(name, style, parameter));
        }
        file.fields.secret_ends.iter().for_each(|end| self.names.add_end(end));
    }

    /// Of every style: what is signed in two ways is signed in one of them.
    fn signing(&mut self, file: &File) {
        let lists = [
            (&file.signing.signature, Stated::Signature),
            (&file.signing.nonce, Stated::Nonce),
            (&file.signing.time, Stated::Time),
        ];
        for (names, stated) in lists {
            names.iter().for_each(|name| self.names.add_stated(name, stated));
            self.headers
                .extend(names.iter().map(|name| (name.clone(), InRequest::Signing(stated))));
        }
    }

    fn replies(&mut self, file: &File, text: &Text<'_>) -> Replies {
        let outcome = &file.outcome;
        let mut replies = Replies {
            ok: outcome.ok.iter().map(|code| code.as_str().into()).collect(),
            ..Replies::default()
        };
        for path in &outcome.code {
            match Member::parse(path.get_ref()) {
                Ok(member) => replies.code.push(member),
                Err(what) => {
                    let what = format!("wrong member `{}`: {what}", path.get_ref());
                    self.faults.push(text.fault(path.span().start, what));
                }
            }
        }
        for (path, value) in &outcome.failed {
            match Member::parse(path.get_ref()) {
                Ok(member) => replies.failed.push((member, value.as_str().into())),
                Err(what) => {
                    let what = format!("wrong member `{}`: {what}", path.get_ref());
                    self.faults.push(text.fault(path.span().start, what));
                }
            }
        }
        for (status, outcome) in &outcome.status {
            match status.get_ref().parse() {
                Ok(status @ 100..=599) => replies.status.push((status, *outcome)),
                Ok(_) | Err(_) => {
                    let what = format!("`{}` is no status: write 100 to 599", status.get_ref());
                    self.faults.push(text.fault(status.span().start, what));
                }
            }
        }
        for (outcome, codes) in &outcome.codes {
            replies.codes.extend(codes.iter().map(|code| (code.as_str().into(), *outcome)));
        }
        for (outcome, words) in &outcome.words {
            let lower = words.iter().map(|word| (word.to_ascii_lowercase().into(), *outcome));
            replies.words.extend(lower);
        }
        replies
    }

    fn finish(mut self) -> Profiles {
        let known = [
            ("authorization", InRequest::Authorization),
            ("cookie", InRequest::Cookie),
            ("host", InRequest::Host),
        ];
        self.headers.extend(known.map(|(name, role)| (name.to_owned(), role)));
        self.prefixes.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        let in_messages = (0_u16..)
            .zip(&self.sources)
            .filter(|(_, source)| matches!(source.place, Place::Member { .. }))
            .map(|(number, _)| number)
            .collect();
        let mut plain_codes: Vec<_> =
            self.list.iter().flat_map(|it| it.replies.codes.iter()).collect();
        plain_codes.retain(|(code, _)| code.starts_with('-') && code.len() == 5);
        let plain_codes = plain_codes.into_iter().cloned().collect();
        Profiles {
            list: self.list,
            sources: self.sources,
            headers: Headers::new(self.headers),
            counts: Headers::new(self.counts),
            names: self.names,
            prefixes: self.prefixes,
            hosts: self.hosts,
            fix_targets: self.fix_targets,
            in_messages,
            plain_codes,
        }
    }
}

/// The place and how records show it. `Err` says what is wrong.
fn parse_place(file: &KeyFile) -> Result<(Place, CompactString), &'static str> {
    let named = [&file.header, &file.scheme, &file.query, &file.form, &file.cookie];
    let places = named.iter().filter(|name| name.is_some()).count()
        + usize::from(file.fix.is_some())
        + usize::from(file.member.is_some() && file.scheme.is_none());
    if places != 1 {
        return Err("name one place: header, scheme, query, form, cookie, fix or member");
    }
    let names = named.into_iter().flatten().chain(&file.member).chain(&file.message);
    for name in names {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.is_ascii() {
            return Err("a name is 1 to 64 ASCII characters");
        }
    }
    let shown = |place: &str, name: &str| {
        let name: CompactString = name.to_ascii_lowercase().into();
        format_compact!("{place}:{name}")
    };
    if let Some(name) = &file.header {
        let with = file.with.as_deref().map(Into::into);
        return Ok((Place::Header { name: name.as_str().into(), with }, shown("header", name)));
    }
    if let Some(name) = &file.scheme {
        let parameter = file.member.as_deref().map(Into::into);
        let place = Place::Scheme { name: name.as_str().into(), parameter };
        return Ok((place, "header:authorization".into()));
    }
    if let Some(name) = &file.query {
        return Ok((Place::Query(name.as_str().into()), shown("query", name)));
    }
    if let Some(name) = &file.form {
        return Ok((Place::Form(name.as_str().into()), shown("form", name)));
    }
    if let Some(name) = &file.cookie {
        return Ok((Place::Cookie(name.as_str().into()), shown("cookie", name)));
    }
    if let Some(tag) = file.fix {
        return Ok((Place::Fix(tag), format_compact!("fix:{tag}")));
    }
    let path = file.member.as_deref().unwrap_or_default();
    let at = Member::parse(path)?;
    let message = file.message.as_deref().map(Into::into);
    Ok((Place::Member { message, at }, format_compact!("message:{path}")))
}
