//! What server, path and method said of a call when they were last seen together: most calls of a
//! host go to a few endpoints.
//!
//! A path may hold a credential, so none is kept: server and path are known again by a 128-bit keyed
//! hash, as credentials are (see [`super::known`]).

use std::cell::RefCell;
use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128, SipHasher13};

use super::{Style, target};
use crate::call::Operation;

/// Endpoints of a busy host, as each server and path name them; 24 KiB.
const SLOTS: usize = 512;

/// A table with one place for each remainder of the hash: the last one there stays.
pub(super) struct Routes {
    hash: SipHasher13,
    slots: RefCell<Box<[Slot]>>,
}

/// A server and a path.
#[derive(Clone, Copy)]
pub(super) struct Route {
    tag: u128,
    /// The style that they belong to, whatever key is used.
    pub(super) place: Style,
    /// The path holds nothing but names.
    pub(super) is_plain: bool,
}

/// What a call does.
#[derive(Clone, Copy)]
pub(super) struct Does {
    pub(super) op: Operation,
    /// A profile says so.
    pub(super) is_ruled: bool,
}

#[derive(Clone, Copy)]
struct Slot {
    /// 0 in an empty place: no more likely to be met than any other 128 bits.
    tag: u128,
    place: Style,
    is_plain: bool,
    /// What the last call there did.
    last: Option<(Asked, Does)>,
}

/// What decides what a call does, besides its path.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Asked {
    method: Method,
    style: Style,
    has_key: bool,
}

/// Methods that are remembered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Get,
    Head,
    Options,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    fn of(name: &str) -> Option<Method> {
        Some(match name {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "OPTIONS" => Method::Options,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "PATCH" => Method::Patch,
            "DELETE" => Method::Delete,
            _ => return None,
        })
    }
}

impl Routes {
    /// Nothing known. `key` must come from the secret.
    pub(super) fn new(key: &[u8; 16]) -> Routes {
        let empty = Slot { tag: 0, place: Style::GENERIC, is_plain: false, last: None };
        Routes {
            hash: SipHasher13::new_with_key(key),
            slots: RefCell::new(vec![empty; SLOTS].into()),
        }
    }

    /// Forgets all: it came from other profiles.
    pub(super) fn clear(&self) {
        self.slots.borrow_mut().iter_mut().for_each(|slot| slot.tag = 0);
    }

    /// A server and a path, with the style as before or else as it is found now.
    pub(super) fn find(
        &self,
        host: Option<&[u8]>,
        path: &[u8],
        place: impl FnOnce() -> Style,
    ) -> Route {
        let mut hash = self.hash;
        // Neither begins where the other ends: no host holds this byte, and none differs from empty.
        hash.write(host.unwrap_or(b"\xff"));
        hash.write_u8(0xff);
        hash.write(path);
        let tag = hash.finish128().as_u128();
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[(tag % SLOTS as u128) as usize];
        if slot.tag != tag {
            *slot = Slot { tag, place: place(), is_plain: target::is_plain(path), last: None };
        }
        Route { tag, place: slot.place, is_plain: slot.is_plain }
    }

    /// What a call does there: as before, or else as it is found now.
    pub(super) fn does(
        &self,
        route: Route,
        (method, style, has_key): (&str, Style, bool),
        find: impl FnOnce() -> Does,
    ) -> Does {
        let Some(method) = Method::of(method) else { return find() };
        let asked = Asked { method, style, has_key };
        let mut slots = self.slots.borrow_mut();
        let slot = &mut slots[(route.tag % SLOTS as u128) as usize];
        match slot.last {
            Some((before, does)) if slot.tag == route.tag && before == asked => does,
            Some(_) | None => {
                let does = find();
                if slot.tag == route.tag {
                    slot.last = Some((asked, does));
                }
                does
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_was_found_once_is_not_looked_for_again() {
        let routes = Routes::new(&[7; 16]);
        let found = Cell::new(0);
        let place = |host, path: &[u8]| {
            let route = routes.find(host, path, || {
                found.set(found.get() + 1);
                Style(found.get())
            });
            route.place
        };
        let first = place(Some(b"a"), b"/b");
        assert_eq!((place(Some(b"a"), b"/b"), found.get()), (first, 1));
        for (host, path) in
            [(Some(&b"a"[..]), &b"/c"[..]), (Some(b"a/"), b"b"), (None, b"/b"), (Some(b""), b"/b")]
        {
            assert_ne!(place(host, path), first, "{host:?} {path:?}");
        }
        routes.clear();
        assert_ne!(place(Some(b"a"), b"/b"), first, "other profiles may say otherwise");
    }

    #[test]
    fn what_a_call_does_depends_on_all_that_was_asked() {
        let routes = Routes::new(&[7; 16]);
        let route = routes.find(None, b"/order", || Style::GENERIC);
        let ops = Operation::ALL;
        let asked = [
            ("POST", Style::GENERIC, true),
            ("GET", Style::GENERIC, true),
            ("POST", Style(1), true),
            ("POST", Style::GENERIC, false),
            ("BREW", Style::GENERIC, true),
        ];
        for _ in 0..2 {
            for (call, op) in asked.iter().zip(ops) {
                let does = routes.does(route, *call, || Does { op: *op, is_ruled: false });
                assert_eq!(does.op, *op);
                let again = routes.does(route, *call, || Does { op: ops[9], is_ruled: true });
                assert_eq!(again.op, if call.0 == "BREW" { ops[9] } else { *op });
            }
        }
    }

    #[test]
    fn a_full_table_forgets_and_never_mixes() {
        let routes = Routes::new(&[7; 16]);
        for _ in 0..2 {
            for number in 0..3 * SLOTS {
                let path = number.to_le_bytes();
                let style = Style((number % 200) as u8);
                let route = routes.find(None, &path, || style);
                assert_eq!(route.place, style);
                let op = Operation::ALL[number % 10];
                let does = routes.does(route, ("GET", style, true), || Does { op, is_ruled: true });
                assert_eq!(does.op, op);
            }
        }
    }
}
