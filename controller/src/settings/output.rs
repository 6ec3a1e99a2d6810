//! How answers are printed: the forms that kubectl has, of which each command takes those that it can give.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command, Error, ValueEnum};

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// For people.
    Table,
    /// The same with more columns.
    Wide,
    /// All of it, for programs.
    Document(Language),
    /// Kind and name alone.
    Name,
}

/// What programs read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// One JSON object a line.
    Json,
    /// A stream of YAML documents.
    Yaml,
}

impl ValueEnum for Output {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::Table,
            Self::Wide,
            Self::Document(Language::Json),
            Self::Document(Language::Yaml),
            Self::Name,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Table => PossibleValue::new("table").help("For people"),
            Self::Wide => {
                PossibleValue::new("wide").help("Nothing cut to fit a terminal, and more columns where there are")
            }
            Self::Document(Language::Json) => PossibleValue::new("json").alias("jsonl").help("One JSON object a line"),
            Self::Document(Language::Yaml) => PossibleValue::new("yaml")
                .alias("yml")
                .help("A stream of YAML documents"),
            Self::Name => PossibleValue::new("name").help("Kind and name alone, for kubectl and loops"),
        })
    }
}

const JSON: Output = Output::Document(Language::Json);
const YAML: Output = Output::Document(Language::Yaml);

/// The forms that a command can give.
#[derive(Clone, Copy, Debug)]
pub struct Forms(&'static [Output]);

/// Of commands that print tables.
pub(super) const TABLES: Forms = Forms(&[Output::Table, Output::Wide, JSON, YAML]);

/// Of commands that print sentences.
pub(super) const SENTENCES: Forms = Forms(&[Output::Table, JSON, YAML]);

/// Of commands that list Segments.
pub(super) const LISTS: Forms = Forms(&[Output::Table, Output::Wide, JSON, YAML, Output::Name]);

/// Of commands that make or change objects.
pub(super) const OBJECTS: Forms = Forms(&[YAML, JSON, Output::Name]);

impl TypedValueParser for Forms {
    type Value = Output;

    fn parse_ref(&self, command: &Command, argument: Option<&Arg>, value: &OsStr) -> Result<Output, Error> {
        let known = PossibleValuesParser::new(self.0.iter().filter_map(Output::to_possible_value));
        let typed = known.parse_ref(command, argument, value).map_err(|mut error| {
            if let Some(tip) = value.to_str().and_then(tip) {
                error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
            }
            error
        })?;
        let of = |form: &&Output| {
            form.to_possible_value()
                .is_some_and(|known| known.matches(&typed, false))
        };
        // It matched one of them.
        self.0
            .iter()
            .find(of)
            .copied()
            .ok_or_else(|| Error::new(clap::error::ErrorKind::InvalidValue).with_cmd(command))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().filter_map(Output::to_possible_value)))
    }
}

/// What to do instead, where somebody asks for what kubectl has and this command does not.
fn tip(value: &str) -> Option<&'static str> {
    let form = value.split('=').next().unwrap_or(value);
    match form {
        "table" => Some("without --output a sentence says what was done"),
        "wide" => Some("nothing of what this command prints is cut: leave it out"),
        "name" => Some("what this command tells are no objects of Kubernetes, and have no names"),
        "jsonpath"
        | "jsonpath-as-json"
        | "jsonpath-file"
        | "go-template"
        | "go-template-file"
        | "template"
        | "templatefile"
        | "custom-columns"
        | "custom-columns-file" => Some(
            "pick fields from `-o json` by a pipe to jq; of Segments kubectl does it, too: `kubectl get segments -A -o jsonpath=...`",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::settings::Arguments;

    fn error(arguments: &str) -> Option<String> {
        let typed = Arguments::try_parse_from(arguments.split(' '));
        typed.err().map(|error| error.to_string())
    }

    #[test]
    fn a_command_takes_the_forms_that_it_can_give_and_names_them() {
        let flows = "nanoseg audit --flows f -o";
        for (arguments, words) in [
            (
                format!("{flows} name"),
                &["[possible values: table, json, yaml]", "no objects"][..],
            ),
            (
                format!("{flows} wide"),
                &["[possible values: table, json, yaml]", "is cut"],
            ),
            (format!("{flows} ymal"), &["a similar value exists: 'yaml'"]),
            (format!("{flows} xml"), &["[possible values: table, json, yaml]"]),
            (
                "nanoseg status -o jsonpath={.items}".to_owned(),
                &[
                    "[possible values: table, wide, json, yaml, name]",
                    "jq",
                    "kubectl get segments",
                ],
            ),
            ("nanoseg status -o custom-columns=A:.b".to_owned(), &["jq"]),
            (
                "nanoseg promote shop/web -o table".to_owned(),
                &["[possible values: yaml, json, name]", "a sentence says"],
            ),
        ] {
            let error = error(&arguments).unwrap_or_default();
            for word in words {
                assert!(error.contains(word), "{arguments}: {word}: {error}");
            }
        }
        for good in [
            "nanoseg audit --flows f -o yml",
            "nanoseg audit --flows f -o jsonl",
            "nanoseg doctor -o wide",
            "nanoseg reach --workload a/b -o yaml",
            "nanoseg diff --old a --new b -o yaml",
            "nanoseg graph --flows f -o wide",
            "nanoseg synthesize --flows f -o name",
            "nanoseg rollback shop/web -o name",
            "nanoseg reject shop/web -o yaml",
            "nanoseg violations -o name",
        ] {
            assert_eq!(error(good), None, "{good}");
        }
    }
}
