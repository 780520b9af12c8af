//! Paths to operations: a tree of segments, walked once for each call.

use smallvec::SmallVec;

use crate::call::Operation;

/// Segments that are looked at. No path in use has more than ten.
const DEPTH_MAX: usize = 16;

/// Methods, as bits.
pub(super) fn method(name: &str) -> u8 {
    match name {
        "GET" | "HEAD" => 1,
        "POST" => 2,
        "PUT" => 4,
        "PATCH" => 8,
        "DELETE" => 16,
        "*" => u8::MAX,
        _ => 32,
    }
}

/// The tree. Segments are told apart by their letters in any case.
#[derive(Debug)]
pub(super) struct Paths {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    children: Vec<(Box<str>, usize)>,
    /// `*`
    any: Option<usize>,
    /// What ends here.
    ops: SmallVec<[(u8, Operation); 1]>,
    /// `**`
    below: SmallVec<[(u8, Operation); 1]>,
}

impl Default for Paths {
    fn default() -> Paths {
        Paths { nodes: vec![Node::default()] }
    }
}

impl Paths {
    /// Adds a pattern. `Err` says what is wrong with it.
    pub(super) fn add(&mut self, pattern: &str, op: Operation) -> Result<(), &'static str> {
        let Some((name, path)) = pattern.split_once(' ') else {
            return Err("no method: write `POST /path`, `* /path` or `rpc name`");
        };
        if !path.starts_with('/') {
            return Err("a path begins with `/`");
        }
        let mask = method(name);
        if mask == 32 {
            return Err("no such method: GET, POST, PUT, PATCH, DELETE or `*` for any");
        }
        let mut at = 0;
        for (depth, segment) in path.split('/').filter(|it| !it.is_empty()).enumerate() {
            if depth == DEPTH_MAX {
                return Err("a path has at most 16 segments");
            }
            if segment == "**" {
                self.nodes[at].below.push((mask, op));
                return Ok(());
            }
            at = self.child(at, segment);
        }
        self.nodes[at].ops.push((mask, op));
        Ok(())
    }

    fn child(&mut self, at: usize, segment: &str) -> usize {
        let fresh = self.nodes.len();
        let node = &mut self.nodes[at];
        if segment == "*" {
            match node.any {
                Some(known) => return known,
                None => node.any = Some(fresh),
            }
        } else {
            let same = |(name, _): &&(Box<str>, usize)| name.eq_ignore_ascii_case(segment);
            match node.children.iter().find(same) {
                Some((_, known)) => return *known,
                None => node.children.push((segment.into(), fresh)),
            }
        }
        self.nodes.push(Node::default());
        fresh
    }

    /// The operation of a path, the most exact pattern first; empty segments count for nothing.
    pub(super) fn find(&self, method_bits: u8, path: &[u8]) -> Option<Operation> {
        let mut segments = SmallVec::<[&[u8]; DEPTH_MAX]>::new();
        for segment in path.split(|byte| *byte == b'/').filter(|it| !it.is_empty()) {
            // What leads elsewhere, or deeper than any pattern.
            if segment == b".." || segments.len() == DEPTH_MAX {
                return None;
            }
            segments.push(segment);
        }
        self.walk(0, method_bits, &segments)
    }

    fn walk(&self, at: usize, method_bits: u8, segments: &[&[u8]]) -> Option<Operation> {
        let node = &self.nodes[at];
        let fits = |ops: &[(u8, Operation)]| {
            ops.iter().find(|(mask, _)| mask & method_bits != 0).map(|(_, op)| *op)
        };
        let Some((first, rest)) = segments.split_first() else { return fits(&node.ops) };
        let same = |(name, _): &&(Box<str>, usize)| name.as_bytes().eq_ignore_ascii_case(first);
        let exact = node.children.iter().find(same).map(|(_, child)| *child);
        let by_child = |child: Option<usize>| self.walk(child?, method_bits, rest);
        by_child(exact).or_else(|| by_child(node.any)).or_else(|| fits(&node.below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(rules: &[(&str, Operation)]) -> Paths {
        let mut paths = Paths::default();
        for (rule, op) in rules {
            paths.add(rule, *op).unwrap();
        }
        paths
    }

    #[test]
    fn the_most_exact_rule_counts() {
        let paths = tree(&[
            ("POST /api/*", Operation::Read),
            ("POST /api/order", Operation::Trade),
            ("DELETE /api/order", Operation::Cancel),
            ("* /api/keys/**", Operation::KeyManagement),
            ("POST /api/*/withdraw", Operation::Withdraw),
        ]);
        let find = |name: &str, path: &str| paths.find(method(name), path.as_bytes());
        assert_eq!(find("POST", "/api/order"), Some(Operation::Trade));
        assert_eq!(find("POST", "//API/Order/"), Some(Operation::Trade));
        assert_eq!(find("DELETE", "/api/order"), Some(Operation::Cancel));
        assert_eq!(find("GET", "/api/order"), None);
        assert_eq!(find("POST", "/api/other"), Some(Operation::Read));
        assert_eq!(find("PATCH", "/api/keys/1/2/3"), Some(Operation::KeyManagement));
        assert_eq!(find("POST", "/api/order/withdraw"), Some(Operation::Withdraw));
        assert_eq!(find("POST", "/api"), None);
        assert_eq!(find("POST", "/api/x/../order"), None, "left to the words of the path");
    }

    #[test]
    fn hostile_paths_end() {
        // Every `*` doubles the ways of a careless walk; the depth bounds them.
        let rules: Vec<String> =
            (1..16).map(|depth| format!("POST {}", "/*".repeat(depth))).collect();
        let rules: Vec<(&str, Operation)> =
            rules.iter().map(|rule| (rule.as_str(), Operation::Read)).collect();
        let paths = tree(&rules);
        assert_eq!(paths.find(2, "/a".repeat(100_000).as_bytes()), None);
        assert_eq!(paths.find(2, "/a".repeat(15).as_bytes()), Some(Operation::Read));
        assert_eq!(paths.find(2, "/".repeat(100_000).as_bytes()), None);
    }

    #[test]
    fn a_bad_rule_says_its_mend() {
        let fault = |rule| Paths::default().add(rule, Operation::Read).unwrap_err();
        assert!(fault("/x").contains("write `POST /path`"));
        assert!(fault("POST x").contains("begins with `/`"));
        assert!(fault("SEND /x").contains("no such method"));
        assert!(fault(&format!("GET {}", "/x".repeat(17))).contains("at most 16"));
    }
}
