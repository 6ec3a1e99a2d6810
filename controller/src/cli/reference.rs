//! `nanoseg completions`, `nanoseg reference` and `nanoseg man`: the command line about itself.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use super::output::Screen;
use super::{CommandError, Found};
use crate::apply::WriteError;
use crate::settings::{Arguments, CompletionArguments, ManArguments};

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

/// One page for the program and one for each of its commands, as `man` reads them.
pub fn man(ManArguments { out }: &ManArguments, screen: &mut Screen<'_>) -> Result<Found, CommandError> {
    let failed = |verb, path: &Path| {
        let path = path.to_owned();
        move |source| WriteError::File { verb, path, source }
    };
    fs::create_dir_all(out).map_err(failed("create", out))?;
    let mut whole = Arguments::command();
    // It gives each command its full name.
    whole.build();
    let shown = |command: &&Command| !command.is_hide_set() && command.get_name() != "help";
    let commands: Vec<Command> = whole.get_subcommands().filter(shown).cloned().collect();
    for command in [whole].into_iter().chain(commands) {
        let man = Man::new(command);
        let path = out.join(man.get_filename());
        let mut page = Vec::new();
        man.render(&mut page)?;
        fs::write(&path, page).map_err(failed("write", &path))?;
        screen.line(path.display())?;
    }
    Ok(Found::Nothing)
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
