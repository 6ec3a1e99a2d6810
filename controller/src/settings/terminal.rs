//! What is known of the terminal that a command is called at.

use std::io::{self, IsTerminal as _};

/// The terminal, or that there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terminal {
    /// How many letters fit into a line of what answers are shown on; `None` where they are not shown but kept.
    pub columns: Option<usize>,
    /// Answers may be coloured.
    pub colour: bool,
    /// Remarks are shown on something where a line can be drawn over.
    pub moves: bool,
}

impl Terminal {
    /// The one of this process. `NO_COLOR` is honoured, as <https://no-color.org> has it.
    pub fn here() -> Self {
        let shown = io::stdout().is_terminal();
        let says = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty());
        let dumb = says("TERM").is_none_or(|terminal| terminal == "dumb");
        let size = rustix::termios::tcgetwinsize(io::stdout());
        let columns = size
            .ok()
            .map(|size| usize::from(size.ws_col))
            .filter(|columns| *columns > 0);
        Self {
            columns: columns.filter(|_| shown),
            colour: shown && !dumb && says("NO_COLOR").is_none(),
            moves: io::stderr().is_terminal() && !dumb,
        }
    }
}
