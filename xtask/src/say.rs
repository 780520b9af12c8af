//! Lines for the person who started us.

/// One line on standard output.
#[expect(clippy::print_stdout, reason = "the one place that talks to the person")]
pub fn say(text: impl std::fmt::Display) {
    println!("{text}");
}
