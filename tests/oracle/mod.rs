//! Other engines that decide about NetworkPolicies, to be asked the same questions.
//!
//! Each is a program of its own, built from a Go module when it is missing. It is told a world (objects and questions) as one
//! JSON document and answers with one line, so that thousands of questions cost one exchange.

use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use nanoseg_lab::go::{self, Module};
use serde_json::Value;

/// An independent engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Engine {
    /// SIG Network's own, `sigs.k8s.io/kube-network-policies`; it knows `ClusterNetworkPolicy` as well.
    KubeNetworkPolicies,
    /// The matcher of `github.com/mattfenwick/cyclonus`.
    Cyclonus,
}

const KUBE_NETWORK_POLICIES: Module = Module {
    name: "oracle-kube-network-policies",
    about: "about 4 minutes",
    package: ".",
    ldflags: "-s -w",
    files: &[
        ("go.mod", include_str!("kube-network-policies/go.mod")),
        ("go.sum", include_str!("kube-network-policies/go.sum")),
        ("main.go", include_str!("kube-network-policies/main.go")),
    ],
    links: &[],
};

const CYCLONUS: Module = Module {
    name: "oracle-cyclonus",
    about: "about 2 minutes",
    package: ".",
    ldflags: "-s -w",
    files: &[
        ("go.mod", include_str!("cyclonus/go.mod")),
        ("go.sum", include_str!("cyclonus/go.sum")),
        ("main.go", include_str!("cyclonus/main.go")),
    ],
    links: &[],
};

/// Why an engine did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Its program could not be built.
    #[error("the oracle could not be built")]
    Build(#[from] go::Error),
    /// Its program could not be started, or talked to.
    #[error("the oracle {program} cannot be talked to")]
    Talk {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It said something else than it was asked for.
    #[error("the oracle {program} answered {said:?} instead of {expected}")]
    Answer {
        /// The program.
        program: PathBuf,
        /// What it said.
        said: String,
        /// What was expected.
        expected: String,
    },
}

impl Error {
    /// Whether it is only that this machine has no Go compiler.
    pub const fn is_no_compiler(&self) -> bool {
        matches!(self, Self::Build(go::Error::NoGo(_)))
    }
}

impl Engine {
    /// The engine's program, built if it is not there yet.
    pub fn program(self) -> Result<PathBuf, Error> {
        let module = match self {
            Self::KubeNetworkPolicies => &KUBE_NETWORK_POLICIES,
            Self::Cyclonus => &CYCLONUS,
        };
        let folder = go::ensure(module, &|step| println!("{step}"))?;
        Ok(folder.join(module.name))
    }
}

/// A running engine. It ends with this value.
#[derive(Debug)]
pub struct Oracle {
    program: PathBuf,
    child: Child,
    questions: BufWriter<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Oracle {
    /// Starts an engine.
    pub fn start(engine: Engine) -> Result<Self, Error> {
        let program = engine.program()?;
        let (child, questions, answers) = spawn(&program, &[])?;
        Ok(Self {
            program,
            child,
            questions,
            answers,
        })
    }

    /// Tells it a world. Each must be followed by [`Self::answers`] before the next.
    pub fn ask(&mut self, world: &Value) -> Result<(), Error> {
        let talk = talk(&self.program);
        serde_json::to_writer(&mut self.questions, world).map_err(|error| talk(error.into()))?;
        self.questions.write_all(b"\n").map_err(&talk)?;
        self.questions.flush().map_err(&talk)
    }

    /// Whether each connection that the world asks about is allowed, in order.
    pub fn answers(&mut self, questions: usize) -> Result<Vec<bool>, Error> {
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(talk(&self.program))?;
        let bits: Option<Vec<bool>> = line
            .trim_end()
            .bytes()
            .map(|byte| match byte {
                b'0' => Some(false),
                b'1' => Some(true),
                _ => None,
            })
            .collect();
        bits.filter(|bits| bits.len() == questions)
            .ok_or_else(|| Error::Answer {
                program: self.program.clone(),
                said: line,
                expected: format!("{questions} bits"),
            })
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // One that has ended already is what is wanted.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// How fast an engine answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So many answers...
    pub answers: u64,
    /// ...of which so many were "allowed"...
    pub allowed: u64,
    /// ...took this long; reading and preparing the world is not counted.
    pub took: Duration,
}

/// Lets an engine answer the questions of a world over and over for about `length`, on one core.
pub fn rate(engine: Engine, world: &Value, length: Duration) -> Result<Rate, Error> {
    let program = engine.program()?;
    let (mut child, mut questions, mut answers) = spawn(&program, &["bench", &length.as_secs_f64().to_string()])?;
    let talk = talk(&program);
    serde_json::to_writer(&mut questions, world).map_err(|error| talk(error.into()))?;
    questions.flush().map_err(&talk)?;
    drop(questions);
    let mut line = String::new();
    answers.read_line(&mut line).map_err(&talk)?;
    child.wait().map_err(&talk)?;
    let numbers: Vec<u64> = line.split_whitespace().flat_map(str::parse).collect();
    match numbers[..] {
        [answers, nanoseconds, allowed] => Ok(Rate {
            answers,
            allowed,
            took: Duration::from_nanos(nanoseconds),
        }),
        _ => Err(Error::Answer {
            program: program.clone(),
            said: line,
            expected: "three numbers".to_owned(),
        }),
    }
}

type Running = (Child, BufWriter<ChildStdin>, BufReader<ChildStdout>);

fn spawn(program: &Path, arguments: &[&str]) -> Result<Running, Error> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(talk(program))?;
    match (child.stdin.take(), child.stdout.take()) {
        (Some(stdin), Some(stdout)) => Ok((child, BufWriter::new(stdin), BufReader::new(stdout))),
        _ => Err(talk(program)(io::ErrorKind::BrokenPipe.into())),
    }
}

fn talk(program: &Path) -> impl Fn(io::Error) -> Error {
    let program = program.to_path_buf();
    move |source| Error::Talk {
        program: program.clone(),
        source,
    }
}
