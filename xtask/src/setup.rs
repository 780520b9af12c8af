//! Brings what building, testing and the demo need and this machine has not.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;

use crate::openssl;

/// What the set-up is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Purpose {
    /// An ordinary build, with the checked-in kernel object.
    Build,
    /// Building the kernel object from source.
    Ebpf,
    /// Live tests and the demo: real servers and captures.
    Live,
    /// A real Apache Kafka.
    Kafka,
    /// Load generators, and what a live run is measured with and beside.
    Load,
    /// Other readers of captures, to be measured beside replays.
    Bench,
    /// Other readers of captures, to compare with.
    Conformance,
}

/// A command, and the Debian package that brings it.
struct Tool {
    purpose: Purpose,
    command: &'static str,
    package: &'static str,
}

const TOOLS: [Tool; 28] = [
    Tool { purpose: Purpose::Build, command: "cc", package: "gcc" },
    Tool { purpose: Purpose::Build, command: "c++", package: "g++" },
    Tool { purpose: Purpose::Build, command: "make", package: "make" },
    Tool { purpose: Purpose::Build, command: "pkg-config", package: "pkg-config" },
    Tool { purpose: Purpose::Live, command: "nginx", package: "nginx-light" },
    Tool { purpose: Purpose::Live, command: "tcpdump", package: "tcpdump" },
    Tool { purpose: Purpose::Live, command: "ip", package: "iproute2" },
    Tool { purpose: Purpose::Live, command: "openssl", package: "openssl" },
    Tool { purpose: Purpose::Live, command: "gnutls-serv", package: "gnutls-bin" },
    Tool { purpose: Purpose::Live, command: "haproxy", package: "haproxy" },
    Tool { purpose: Purpose::Live, command: "apache2", package: "apache2-bin" },
    Tool { purpose: Purpose::Live, command: "lighttpd", package: "lighttpd-mod-openssl" },
    Tool { purpose: Purpose::Live, command: "curl", package: "curl" },
    Tool { purpose: Purpose::Live, command: "python3", package: "python3" },
    Tool { purpose: Purpose::Live, command: "node", package: "nodejs" },
    Tool { purpose: Purpose::Live, command: "go", package: "golang-go" },
    Tool { purpose: Purpose::Live, command: "setpriv", package: "util-linux" },
    Tool { purpose: Purpose::Kafka, command: "java", package: "openjdk-17-jre-headless" },
    Tool { purpose: Purpose::Kafka, command: "mvn", package: "maven" },
    Tool { purpose: Purpose::Kafka, command: "kcat", package: "kcat" },
    Tool { purpose: Purpose::Kafka, command: "openssl", package: "openssl" },
    Tool { purpose: Purpose::Load, command: "wrk", package: "wrk" },
    Tool { purpose: Purpose::Live, command: "h2load", package: "nghttp2-client" },
    Tool { purpose: Purpose::Load, command: "bpftool", package: "bpftool" },
    Tool { purpose: Purpose::Load, command: "bpftrace", package: "bpftrace" },
    Tool { purpose: Purpose::Bench, command: "suricata", package: "suricata" },
    Tool { purpose: Purpose::Bench, command: "tshark", package: "tshark" },
    Tool { purpose: Purpose::Conformance, command: "tshark", package: "tshark" },
];

/// Version of bpf-linker, and the LLVM that it is built with. The linker must be at least as new as
/// the LLVM of the compiler whose bitcode it reads.
const BPF_LINKER: &str = "0.13.0";
const LLVM: &str = "22";
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// Brings everything for `purposes`; what is there already is left alone.
///
/// # Errors
///
/// When something is missing that only root can install (with the command to run), or when an
/// installation fails.
pub fn ensure_for(purposes: &[Purpose]) -> anyhow::Result<()> {
    let mut missing: Vec<&str> = TOOLS
        .iter()
        .filter(|tool| purposes.contains(&tool.purpose) && find(tool.command).is_none())
        .map(|tool| tool.package)
        .collect();
    if purposes.contains(&Purpose::Build) && !has_library("openssl") {
        missing.push("libssl-dev");
    }
    if purposes.contains(&Purpose::Live) && python_with("websockets").is_none() {
        missing.push("python3-websockets");
    }
    if purposes.contains(&Purpose::Live) && openssl::library(openssl::BORINGSSL).is_err() {
        missing.push("android-libboringssl");
    }
    install_packages(&missing)?;
    for environment in [CCXT, GRPC, KAFKA] {
        if purposes.contains(&Purpose::Live) && environment.python().is_none() {
            environment.make()?;
        }
    }
    if purposes.contains(&Purpose::Ebpf) {
        ebpf_toolchain()?;
    }
    Ok(())
}

/// Whether a library can be built against.
fn has_library(name: &str) -> bool {
    output(Command::new("pkg-config").args(["--exists", name])).is_some()
}

/// A compiler that can build `core` for BPF, and the linker that goes with it.
pub struct EbpfToolchain {
    /// rustc with its library sources.
    pub rustc: PathBuf,
    /// Those sources.
    pub sources: PathBuf,
    /// bpf-linker.
    pub linker: PathBuf,
    /// Strips debug sections and leaves BTF.
    pub objcopy: PathBuf,
}

/// Finds the eBPF toolchain, and brings what is missing of it: library sources through rustup, or
/// a compiler with sources from Debian where rustup has no network; bpf-linker is built once and
/// kept in the user's cache.
///
/// # Errors
///
/// As [`ensure_for`].
pub fn ebpf_toolchain() -> anyhow::Result<EbpfToolchain> {
    let objcopy = Path::new(LLVM_PREFIX).join("bin/llvm-objcopy");
    let has_llvm = objcopy.exists() && Path::new(LLVM_PREFIX).join("lib/libLLVM.so").exists();
    if !has_llvm {
        install_packages(&["llvm-22-dev"])?;
    }
    let rustc = rustc_with_sources()?;
    let sources = library_sources(&rustc).context("rustc does not name its sysroot")?;
    Ok(EbpfToolchain { rustc, sources, linker: bpf_linker()?, objcopy })
}

fn rustc_with_sources() -> anyhow::Result<PathBuf> {
    let own = find("rustc").context("rustc is missing: install Rust from rustup.rs")?;
    let packaged = Path::new("/usr/bin/rustc");
    for rustc in [own.as_path(), packaged] {
        if has_sources(rustc) && llvm_of(rustc).is_some_and(|llvm| llvm <= llvm_of_linker()) {
            return Ok(rustc.to_path_buf());
        }
    }
    if llvm_of(&own).is_some_and(|llvm| llvm <= llvm_of_linker()) && find("rustup").is_some() {
        println!("setup: rustup component add rust-src");
        let mut add = Command::new("rustup");
        add.args(["component", "add", "rust-src"]).stderr(Stdio::null());
        if add.status().is_ok_and(|status| status.success()) && has_sources(&own) {
            return Ok(own);
        }
        println!("setup: rustup could not bring it; taking Debian's packages instead");
    }
    install_packages(&["rustc-web", "rust-web-src"])?;
    ensure!(has_sources(packaged), "{} has no library sources", packaged.display());
    Ok(packaged.to_path_buf())
}

fn has_sources(rustc: &Path) -> bool {
    library_sources(rustc).is_some_and(|sources| sources.join("rust/library/core").exists())
}

/// Where a compiler's library sources are, if they are there.
fn library_sources(rustc: &Path) -> Option<PathBuf> {
    let sysroot = output(Command::new(rustc).args(["--print", "sysroot"]))?;
    Some(Path::new(sysroot.trim()).join("lib/rustlib/src"))
}

/// Major version of the LLVM in a compiler.
fn llvm_of(rustc: &Path) -> Option<u32> {
    let version = output(Command::new(rustc).arg("-vV"))?;
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    llvm.split('.').next()?.parse().ok()
}

fn llvm_of_linker() -> u32 {
    LLVM.parse().unwrap_or(0)
}

fn bpf_linker() -> anyhow::Result<PathBuf> {
    let root = cache()?.join(format!("bpf-linker-{BPF_LINKER}-llvm{LLVM}"));
    let linker = root.join("bin/bpf-linker");
    if linker.exists() {
        return Ok(linker);
    }
    println!("setup: building bpf-linker {BPF_LINKER} for LLVM {LLVM}, about two minutes, once");
    let built = Command::new("cargo")
        .args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked", "--quiet"])
        .args(["--no-default-features", "--features", &format!("llvm-{LLVM}")])
        .arg("--root")
        .arg(&root)
        .env("LLVM_PREFIX", LLVM_PREFIX)
        .env("LLVM_SYS_221_PREFIX", LLVM_PREFIX)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .status()
        .context("running cargo install bpf-linker")?;
    ensure!(built.success() && linker.exists(), "bpf-linker could not be built: {built}");
    Ok(linker)
}

/// Where things are kept that are made once for all checkouts.
///
/// # Errors
///
/// When there is no home directory, or it cannot be written to.
pub fn cache() -> anyhow::Result<PathBuf> {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    let cache = base.join("keywatch");
    fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
    Ok(cache)
}

/// Names the packages, then installs them as root, or says which command would.
fn install_packages(packages: &[&str]) -> anyhow::Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let command = format!("apt-get install -y --no-install-recommends {}", packages.join(" "));
    ensure!(find("apt-get").is_some(), "missing: {}; install them", packages.join(", "));
    if !is_root() {
        bail!("missing: {}; run: sudo {command}", packages.join(", "));
    }
    println!("setup: {command}");
    let apt = |arguments: &[&str]| -> anyhow::Result<bool> {
        let status = Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(Stdio::null())
            .status()
            .context("running apt-get")?;
        Ok(status.success())
    };
    let mut arguments = vec!["install", "-y", "-q", "--no-install-recommends"];
    arguments.extend(packages);
    // Lists of packages may be old, or not there at all on a fresh machine.
    let installed = apt(&arguments)? || (apt(&["update", "-q"])? && apt(&arguments)?);
    ensure!(
        installed,
        "`{command}` failed; run it by hand to see why: what this release of Debian lacks may be in its \
         backports, as suricata is for Debian 12"
    );
    Ok(())
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_some_and(|id| id.trim() == "0")
}

/// Where a command is, by PATH and the folders that root's commands are in.
pub fn find(command: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(command))
        .find(|file| file.is_file())
}

/// A Python that has a module: the user's own, or the one of the Debian packages.
pub fn python_with(module: &str) -> Option<PathBuf> {
    let own = find("python3").into_iter();
    own.chain([PathBuf::from("/usr/bin/python3")]).find(|python| {
        output(Command::new(python).args(["-c", &format!("import {module}")])).is_some()
    })
}

/// Python packages in an environment of their own.
struct Environment {
    /// The module that shows that they are there.
    module: &'static str,
    /// The first names the environment.
    packages: &'static [&'static str],
}

/// What signs as clients of exchanges do (<https://pypi.org/project/ccxt>, MIT): the version that the
/// expected calls were written for.
const CCXT: Environment = Environment { module: "ccxt", packages: &["ccxt==4.5.50"] };
/// A client of Kafka that shares no code with ours (<https://pypi.org/project/kafka-python>, Apache-2.0).
const KAFKA: Environment =
    Environment { module: "kafka", packages: &["kafka-python==3.0.12", "zstandard==0.25.0"] };

/// gRPC and gRPC-Web by others (<https://pypi.org/project/grpcio>, <https://pypi.org/project/sonora>, both
/// Apache-2.0).
const GRPC: Environment =
    Environment { module: "sonora.client", packages: &["grpcio==1.85.3", "sonora==0.2.3"] };

/// A Python that speaks gRPC and gRPC-Web.
pub fn python_with_grpc() -> Option<PathBuf> {
    GRPC.python()
}

/// A Python that signs as clients of exchanges do.
pub fn python_with_ccxt() -> Option<PathBuf> {
    CCXT.python()
}

/// A Python that reads Kafka.
pub fn python_with_kafka() -> Option<PathBuf> {
    KAFKA.python()
}

impl Environment {
    fn root(&self) -> anyhow::Result<PathBuf> {
        let name = self.packages[0].replace("==", "-");
        Ok(cache()?.join(name))
    }

    /// The one that setup has made, or the user's own.
    fn python(&self) -> Option<PathBuf> {
        let made = self.root().ok()?.join("bin/python");
        let import = format!("import {}", self.module);
        let imports = |python: &Path| output(Command::new(python).args(["-c", &import])).is_some();
        Some(made).filter(|python| imports(python)).or_else(|| python_with(self.module))
    }

    fn make(&self) -> anyhow::Result<()> {
        let root = self.root()?;
        let venv = |python: &Path| {
            let mut make = Command::new(python);
            make.args(["-m", "venv", "--clear"]).arg(&root);
            output(&mut make).is_some()
        };
        if !find("python3").is_some_and(|python| venv(&python)) {
            install_packages(&["python3-venv"])?;
            let made = venv(Path::new("/usr/bin/python3"));
            ensure!(made, "no Python environment could be made in {}", root.display());
        }
        let mut pip = Command::new(root.join("bin/pip"));
        let installed = pip.args(["install", "--quiet"]).args(self.packages).status()?;
        ensure!(installed.success(), "pip could not install {}", self.packages.join(" "));
        Ok(())
    }
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
