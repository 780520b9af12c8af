//! Everything about Keywatch that a person would otherwise type.

mod ebpf;
mod passive;
mod setup;

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("setup") => setup::ensure_for(&[setup::Purpose::Ebpf, setup::Purpose::Live]),
        Some("ebpf") => ebpf::run(false).map(|_| ()),
        Some("passive") => passive::run(&ebpf::prebuilt()),
        _ => Ok(()),
    }
}
