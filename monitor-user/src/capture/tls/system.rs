//! The TLS libraries that the system's own programs share, before any program uses them.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::processes::{is_library, makes_randoms};

/// Where distributions keep shared libraries; in folders named like machines among them too.
const FOLDERS: [&str; 5] = ["/usr/lib64", "/usr/lib", "/lib64", "/lib", "/usr/local/lib"];

/// Versions of few libraries; a hostile folder may hold any number.
const LIBRARIES_MAX: usize = 64;

/// What is there, each file once, whatever names it has.
pub(super) fn libraries() -> Vec<PathBuf> {
    find(FOLDERS.iter().map(Path::new))
}

fn find<'a>(folders: impl Iterator<Item = &'a Path>) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    let mut libraries = Vec::new();
    let listed = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort_unstable();
        paths
    };
    for folder in folders {
        // `x86_64-linux-gnu` and its like.
        let is_machines = |path: &&PathBuf| name_of(path).contains("-linux-") && path.is_dir();
        let mut paths = listed(folder);
        let nested = paths.iter().filter(is_machines).flat_map(|folder| listed(folder));
        let nested: Vec<PathBuf> = nested.collect();
        paths.extend(nested);
        for path in paths.into_iter().filter(|path| is_of_tls(&name_of(path))) {
            let Ok(about) = std::fs::metadata(&path) else { continue };
            if about.is_file()
                && libraries.len() < LIBRARIES_MAX
                && seen.insert((about.dev(), about.ino()))
            {
                libraries.push(path);
            }
        }
    }
    libraries
}

fn is_of_tls(name: &str) -> bool {
    is_library(name) || makes_randoms(name)
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_once_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let nested = dir.path().join("x86_64-linux-gnu");
        std::fs::create_dir_all(&nested).unwrap();
        for name in ["libssl.so.3", "libcrypto.so.3", "libc.so.6", "libssl.a"] {
            std::fs::write(nested.join(name), "").unwrap();
        }
        std::os::unix::fs::symlink("libssl.so.3", nested.join("libssl.so")).unwrap();
        std::os::unix::fs::symlink("nowhere", nested.join("libgnutls.so.30")).unwrap();
        std::fs::create_dir(dir.path().join("libssl.so.9")).unwrap();
        let twice = [dir.path(), &nested];
        let found = find(twice.into_iter());
        let names: Vec<_> = found.iter().map(|path| name_of(path)).collect();
        assert_eq!(names, ["libcrypto.so.3", "libssl.so"]);
    }
}
