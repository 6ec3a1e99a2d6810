//! Which cluster a command works on, and in which namespace, as kubectl is told.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::segment::SegmentName;

/// How to reach an API server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Access {
    /// Kubeconfig file; without it: the variable KUBECONFIG, `~/.kube/config`, or the pod's service account
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// Which Segments are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// Those of a namespace.
    Namespace(String),
    /// One.
    Segment(SegmentName),
}

impl Which {
    /// Whether a Segment is one of them.
    pub fn means(&self, segment: &SegmentName) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(namespace) => segment.namespace == *namespace,
            Self::Segment(name) => segment == name,
        }
    }
}

#[derive(Args)]
struct TypedWhich {
    /// Only those of a namespace, or one of them
    #[arg(value_name = "NAMESPACE[/SEGMENT]")]
    only: Option<String>,
    /// Only those of this namespace; a Segment needs no namespace then
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Those of all namespaces, as without it
    #[arg(short = 'A', long, conflicts_with_all = ["only", "namespace"])]
    all_namespaces: bool,
}

/// The one Segment that is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct One(pub SegmentName);

#[derive(Args)]
struct TypedOne {
    /// The Segment, as `nanoseg status` lists it
    #[arg(value_name = "NAMESPACE/SEGMENT")]
    segment: String,
    /// Namespace of the Segment, which needs none then
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

impl TryFrom<TypedWhich> for Which {
    type Error = clap::Error;

    fn try_from(typed: TypedWhich) -> Result<Self, Self::Error> {
        let TypedWhich {
            only,
            namespace,
            all_namespaces: _,
        } = typed;
        match (only, namespace) {
            (None, None) => Ok(Self::All),
            (None, Some(namespace)) => name(namespace).map(Self::Namespace),
            (Some(only), None) if !only.contains('/') => name(only).map(Self::Namespace),
            (Some(only), namespace) => segment(&only, namespace).map(Self::Segment),
        }
    }
}

impl TryFrom<TypedOne> for One {
    type Error = clap::Error;

    fn try_from(
        TypedOne {
            segment: typed,
            namespace,
        }: TypedOne,
    ) -> Result<Self, Self::Error> {
        segment(&typed, namespace).map(Self)
    }
}

fn segment(typed: &str, namespace: Option<String>) -> Result<SegmentName, clap::Error> {
    match (super::commands::pair(typed), namespace) {
        (Some((own, name)), namespace) if namespace.as_ref().is_none_or(|named| *named == own) => {
            Ok(SegmentName { namespace: own, name })
        }
        (Some((own, _)), Some(named)) => Err(wrong(format!("'{typed}' is of namespace {own}, not of {named}"))),
        (None, Some(namespace)) if !typed.contains('/') => Ok(SegmentName {
            namespace: name(namespace)?,
            name: name(typed.to_owned())?,
        }),
        (_, _) => Err(wrong(format!(
            "'{typed}' names no Segment; write NAMESPACE/SEGMENT, or SEGMENT and --namespace"
        ))),
    }
}

fn name(typed: String) -> Result<String, clap::Error> {
    if typed.is_empty() || typed.contains('/') {
        Err(wrong(format!(
            "'{typed}' is not a name; write NAMESPACE or NAMESPACE/SEGMENT"
        )))
    } else {
        Ok(typed)
    }
}

fn wrong(why: String) -> clap::Error {
    clap::Error::raw(ErrorKind::ValueValidation, why + "\n")
}

/// What was meant is known once all of what was typed is.
macro_rules! as_typed {
    ($meant:ty, $typed:ty) => {
        impl FromArgMatches for $meant {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                <$typed>::from_arg_matches(matches)?.try_into()
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                *self = Self::from_arg_matches(matches)?;
                Ok(())
            }
        }

        impl Args for $meant {
            fn augment_args(command: Command) -> Command {
                <$typed>::augment_args(command)
            }

            fn augment_args_for_update(command: Command) -> Command {
                <$typed>::augment_args_for_update(command)
            }
        }
    };
}

as_typed!(Which, TypedWhich);
as_typed!(One, TypedOne);

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::settings::{Arguments, Command as Typed};

    fn typed(words: &str) -> Result<Typed, String> {
        let words = ["nanoseg"].into_iter().chain(words.split_whitespace());
        let arguments = Arguments::try_parse_from(words).map_err(|error| error.to_string())?;
        Ok(arguments.command)
    }

    #[test]
    fn segments_are_named_as_the_status_does_and_as_kubectl_does() {
        let shop = || Which::Namespace("shop".to_owned());
        let web = || SegmentName {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
        };
        for (words, meant) in [
            ("status", Which::All),
            ("status -A", Which::All),
            ("status shop", shop()),
            ("status -n shop", shop()),
            ("status --namespace=shop", shop()),
            ("status shop/web", Which::Segment(web())),
            ("status web -n shop", Which::Segment(web())),
            ("status shop/web -n shop", Which::Segment(web())),
        ] {
            let Ok(Typed::Status(status)) = typed(words) else {
                panic!("{words}");
            };
            assert_eq!(status.which, meant, "{words}");
        }
        for words in ["promote shop/web", "promote -n shop web", "promote web -n shop"] {
            let Ok(Typed::Promote(promote)) = typed(words) else {
                panic!("{words}");
            };
            assert_eq!(promote.segment, One(web()), "{words}");
        }
    }

    #[test]
    fn what_names_nothing_or_two_things_is_an_error_that_says_so() {
        for (words, why) in [
            ("status shop/web -n data", "is of namespace shop, not of data"),
            ("status shop/", "write NAMESPACE/SEGMENT"),
            ("status a/b/c", "write NAMESPACE/SEGMENT"),
            ("status -n shop/web", "is not a name"),
            ("status -A shop", "cannot be used with"),
            ("status -A -n shop", "cannot be used with"),
            ("promote web", "or SEGMENT and --namespace"),
            ("promote", "were not provided"),
            ("promote -n shop", "were not provided"),
        ] {
            let error = typed(words).expect_err(words);
            assert!(error.contains(why), "{words}: {error}");
        }
    }
}
