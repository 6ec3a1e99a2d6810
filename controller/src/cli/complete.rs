//! What kubectl asks of a plugin when somebody presses Tab: `kubectl_complete-nanoseg` with the words so far, the last of which is
//! to be completed. Pure.
//!
//! <https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/>; the answer is cobra's: a line for each word that fits, then a
//! directive.

use clap::{Arg, Command, CommandFactory as _};

use crate::settings::Arguments;

/// Files are offered by the shell.
const FILES: &str = ":0";

/// Nothing else is offered.
const NOTHING_ELSE: &str = ":4";

/// The words that may stand in place of the last one.
pub fn complete(words: &[String]) -> String {
    let mut whole = Arguments::command();
    // It gives each command the options that all have.
    whole.build();
    let (last, before) = words
        .split_last()
        .map_or(("", &[][..]), |(last, before)| (last, before));
    let (command, awaited) = so_far(&whole, before);
    let (found, directive) = match (awaited, last.split_once('=')) {
        (Some(option), _) => values(option, ""),
        (None, Some((option, _))) => match option_of(command, option) {
            Some(found) => values(found, &format!("{option}=")),
            None => (Vec::new(), NOTHING_ELSE),
        },
        (None, None) if last.starts_with('-') => (options(command), NOTHING_ELSE),
        (None, None) => (names(command), NOTHING_ELSE),
    };
    let mut text = String::new();
    for (word, about) in found.iter().filter(|(word, _)| word.starts_with(last)) {
        text.extend([word, "\t", about, "\n"]);
    }
    text + directive + "\n"
}

/// The command that was named, and the option whose value comes next.
fn so_far<'a>(whole: &'a Command, words: &[String]) -> (&'a Command, Option<&'a Arg>) {
    let mut command = whole;
    let mut awaited = None;
    for word in words {
        if awaited.take().is_some() {
            continue;
        }
        if word.starts_with('-') {
            awaited = option_of(command, word).filter(|option| option.get_action().takes_values());
        } else if let Some(found) = command.find_subcommand(word) {
            command = found;
        }
    }
    (command, awaited)
}

fn option_of<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|option| {
        let long = option
            .get_long()
            .is_some_and(|long| word.strip_prefix("--") == Some(long));
        long || option
            .get_short()
            .is_some_and(|short| word.strip_prefix('-') == Some(short.to_string().as_str()))
    })
}

fn values(option: &Arg, before: &str) -> (Vec<(String, String)>, &'static str) {
    let values = option.get_possible_values();
    let found = values.iter().filter(|value| !value.is_hide_set()).map(|value| {
        let about = value.get_help().map(ToString::to_string).unwrap_or_default();
        (format!("{before}{}", value.get_name()), about)
    });
    let directive = if values.is_empty() { FILES } else { NOTHING_ELSE };
    (found.collect(), directive)
}

fn options(command: &Command) -> Vec<(String, String)> {
    let shown = command.get_arguments().filter(|option| !option.is_hide_set());
    let found = shown.filter_map(|option| {
        let about = option.get_help().map(ToString::to_string).unwrap_or_default();
        Some((format!("--{}", option.get_long()?), about))
    });
    found.collect()
}

/// Commands, or what may stand where no option does.
fn names(command: &Command) -> Vec<(String, String)> {
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    let commands = shown.map(|command| {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        (command.get_name().to_owned(), about)
    });
    let places = command.get_positionals().flat_map(|place| values(place, "").0);
    commands.chain(places).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words that are offered, and the directive.
    fn offered(line: &str) -> (Vec<String>, String) {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let text = complete(&words);
        let mut lines: Vec<&str> = text.lines().collect();
        let directive = lines.pop().unwrap_or_default().to_owned();
        let words = lines.iter().filter_map(|line| line.split('\t').next());
        (words.map(str::to_owned).collect(), directive)
    }

    #[test]
    fn what_fits_is_offered() {
        for (line, expected, directive) in [
            ("sta", &["status"][..], NOTHING_ELSE),
            ("r", &["reach", "reject", "rollback", "reference"], NOTHING_ELSE),
            ("pro", &["promote"], NOTHING_ELSE),
            ("status --o", &["--output"], NOTHING_ELSE),
            ("status -o ", &["table", "wide", "json", "yaml", "name"], NOTHING_ELSE),
            ("status --output j", &["json"], NOTHING_ELSE),
            (
                "promote --output=",
                &["--output=yaml", "--output=json", "--output=name"],
                NOTHING_ELSE,
            ),
            ("status --kubeconfig ", &[], FILES),
            ("status --kubeconfig a sh", &[], NOTHING_ELSE),
            ("audit --kubeconfig status -o y", &["yaml"], NOTHING_ELSE),
            ("completions z", &["zsh"], NOTHING_ELSE),
            ("frobnicate --x=", &[], NOTHING_ELSE),
        ] {
            assert_eq!(
                offered(line),
                (
                    expected.iter().map(|word| (*word).to_owned()).collect(),
                    directive.to_owned()
                ),
                "{line}"
            );
        }
        let (all, _) = offered("");
        assert!(
            all.contains(&"doctor".to_owned()) && !all.contains(&"probe-pod".to_owned()),
            "{all:?}"
        );
    }
}
