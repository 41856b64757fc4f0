//! The command line of the program itself. (With a test of its own the program is built with the tests: the
//! process tests run it.)

use std::process::Command;

#[test]
fn its_commands_are_k3s_own() {
    let help = Command::new(env!("CARGO_BIN_EXE_k3s-like"))
        .arg("--help")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&help.stdout);
    for command in ["server", "etcd-snapshot", "delete"] {
        assert!(text.contains(command), "no {command} in {text}");
    }
}
