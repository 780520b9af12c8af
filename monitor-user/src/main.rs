//! The `keywatch` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    monitor_user::main()
}
