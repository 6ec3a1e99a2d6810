//! The reference of the command line is what the command line says of itself.

use std::fs;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/reference.md");

#[test]
fn the_reference_is_up_to_date() {
    let current = nanoseg::cli::reference_text();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(FILE, current).unwrap();
        return;
    }
    let committed = fs::read_to_string(FILE).unwrap_or_default();
    assert!(
        committed == current,
        "controller/reference.md is not what the code says; run: UPDATE=1 cargo test -p nanoseg --test reference"
    );
}

#[test]
fn every_command_teaches_by_an_example() {
    use clap::CommandFactory as _;
    let arguments = nanoseg::settings::Arguments::command();
    // What people do not type is hidden.
    for command in arguments.get_subcommands().filter(|command| !command.is_hide_set()) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(
            help.contains("Example") && help.contains(command.get_name()),
            "{}: no example in its help",
            command.get_name()
        );
    }
}

/// Clap fills a hundred columns at most: a command that is longer is broken, and whoever copies it gets two.
#[test]
fn no_line_of_help_is_broken() {
    use clap::CommandFactory as _;
    let arguments = nanoseg::settings::Arguments::command();
    for command in std::iter::once(&arguments).chain(arguments.get_subcommands()) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines() {
            // Sentences fit a terminal of eighty columns, too.
            let room = if line.starts_with("  ") { 100 } else { 80 };
            assert!(line.chars().count() <= room, "{}: {line}", command.get_name());
        }
    }
}
