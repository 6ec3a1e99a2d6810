//! What to do where something was typed that nobody knows.

use clap::CommandFactory as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::Arguments;

/// An error with what to do, where clap knows nothing similar to what was typed.
pub(super) fn advised(mut error: clap::Error) -> clap::Error {
    let typed = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let tip = match error.kind() {
        ErrorKind::InvalidSubcommand if error.get(ContextKind::SuggestedSubcommand).is_none() => {
            let command = Arguments::command();
            let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
            let names: Vec<&str> = shown.map(clap::Command::get_name).collect();
            format!("the commands are {}", names.join(", "))
        }
        ErrorKind::UnknownArgument => match typed(ContextKind::InvalidArg) {
            // What everybody types who comes from kubectl.
            Some("-n" | "--namespace") => "the namespace is a part of the name: `explain --from NAMESPACE/POD`",
            Some("-A" | "--all-namespaces") => "without a namespace it is all of them",
            _ => return error,
        }
        .to_owned(),
        _ => return error,
    };
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    error
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn what_nobody_knows_is_answered_by_what_there_is() {
        for (typed, words) in [
            (
                &["frobnicate"][..],
                &["the commands are controller, audit", "completions, reference, man"][..],
            ),
            (&["statsu"], &["a similar subcommand exists: 'status'"]),
            (&["explain", "-n", "shop"], &["--from NAMESPACE/POD"]),
            (&["audit", "-A"], &["all of them"]),
            (&["status", "--kubeconfg", "x"], &["--kubeconfig"]),
        ] {
            let error = Arguments::try_parse_from(["nanoseg"].iter().chain(typed)).unwrap_err();
            let error = advised(error).to_string();
            for word in words {
                assert!(error.contains(word), "{typed:?}: {error}");
            }
            assert!(
                !error.contains("probe-pod") && !error.contains("-- -"),
                "{typed:?}: {error}"
            );
        }
    }
}
