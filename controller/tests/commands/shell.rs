//! What the command line says of itself, and to shells.

use std::os::unix::fs::symlink;
use std::process::Command;

use super::Folder;

#[test]
fn called_as_a_plugin_it_says_how_to_call_it() {
    let folder = Folder::new();
    let plugin = folder.at("kubectl-nanoseg");
    symlink(env!("CARGO_BIN_EXE_nanoseg"), &plugin).unwrap();
    for (program, usage) in [
        (plugin.as_os_str(), "Usage: kubectl nanoseg reach"),
        (env!("CARGO_BIN_EXE_nanoseg").as_ref(), "Usage: nanoseg reach"),
    ] {
        let output = Command::new(program).args(["reach", "--help"]).output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains(usage), "{help}");
        assert!(!help.contains('\u{1b}'), "no colour where nobody looks: {help}");
    }
}

#[test]
fn shells_take_what_completes_for_them() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish"] {
        let ran = folder.run(&["completions", shell]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(ran.out.contains("reach"), "{shell}");
        folder.write(shell, ran.out);
    }
    let checked = Command::new("bash").arg("-n").arg(folder.at("bash")).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
