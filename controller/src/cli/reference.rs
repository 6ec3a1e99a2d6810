//! `nanoseg completions` and `nanoseg reference`: the command line about itself.

use clap::{Command, CommandFactory as _};
use clap_complete::{Shell, generate};

use super::output::Screen;
use super::{CommandError, Found};
use crate::settings::{Arguments, CompletionArguments};

/// What a shell needs to complete commands and options.
pub fn completions(
    CompletionArguments { shell }: &CompletionArguments,
    screen: &mut Screen<'_>,
) -> Result<Found, CommandError> {
    screen.print(&completions_of(*shell))?;
    Ok(Found::Nothing)
}

fn completions_of(shell: Shell) -> String {
    let mut text = Vec::new();
    generate(shell, &mut Arguments::command(), "nanoseg", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Every command and option as Markdown.
pub fn reference(screen: &mut Screen<'_>) -> Result<Found, CommandError> {
    screen.print(&reference_text())?;
    Ok(Found::Nothing)
}

/// The same, as a text.
pub fn reference_text() -> String {
    let options = clap_markdown::MarkdownOptions::new()
        .title("Command line of nanoseg".to_owned())
        .show_footer(false);
    let command = fenced(Arguments::command());
    let text = clap_markdown::help_markdown_command_custom(&command, &options);
    // Lines that end in spaces do not survive an editor.
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n").trim_end().to_owned() + "\n"
}

/// Examples as code: they are lines, and Markdown makes one paragraph of them.
fn fenced(command: Command) -> Command {
    let help = command.get_after_help().map(|help| format!("```text\n{help}\n```"));
    let command = match help {
        Some(help) => command.after_help(help),
        None => command,
    };
    command.mut_subcommands(fenced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_are_told_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = completions_of(shell);
            for command in Arguments::command().get_subcommands() {
                assert!(text.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
        }
    }
}
