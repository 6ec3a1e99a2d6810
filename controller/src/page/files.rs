//! The page itself, part of the program: a document, a style sheet and scripts, as they are written. Nothing else is served,
//! and nothing of it comes from elsewhere.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse as _, Response};

/// A file.
#[derive(Clone, Copy, Debug)]
struct File {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

const FILES: [File; 9] = [
    File {
        path: "/style.css",
        kind: "text/css; charset=utf-8",
        text: include_str!("assets/style.css"),
    },
    File {
        path: "/icon.svg",
        kind: "image/svg+xml",
        text: include_str!("assets/icon.svg"),
    },
    File {
        path: "/page.js",
        kind: SCRIPT,
        text: include_str!("assets/page.js"),
    },
    File {
        path: "/elements.js",
        kind: SCRIPT,
        text: include_str!("assets/elements.js"),
    },
    File {
        path: "/map.js",
        kind: SCRIPT,
        text: include_str!("assets/map.js"),
    },
    File {
        path: "/canvas.js",
        kind: SCRIPT,
        text: include_str!("assets/canvas.js"),
    },
    File {
        path: "/segments.js",
        kind: SCRIPT,
        text: include_str!("assets/segments.js"),
    },
    File {
        path: "/violations.js",
        kind: SCRIPT,
        text: include_str!("assets/violations.js"),
    },
    File {
        path: "/what-if.js",
        kind: SCRIPT,
        text: include_str!("assets/what-if.js"),
    },
];

/// Whether a file is needed to ask for the token, and says nothing.
pub(super) fn is_open(path: &str) -> bool {
    matches!(path, "/style.css" | "/icon.svg")
}

/// The document.
pub(super) async fn document() -> Html<&'static str> {
    Html(include_str!("assets/index.html"))
}

/// The question for the token, after what is to be said of the last answer.
pub(super) fn login(said: &'static str) -> Response {
    const ALERT: &str = "<p role=\"alert\">";
    let document = include_str!("assets/login.html").replace(ALERT, &format!("{ALERT}{said}"));
    (StatusCode::UNAUTHORIZED, Html(document)).into_response()
}

/// A file by its path, or that there is none.
pub(super) async fn file(uri: axum::http::Uri) -> Response {
    match FILES.iter().find(|file| file.path == uri.path()) {
        Some(File { path: _, kind, text }) => ([(CONTENT_TYPE, *kind)], *text).into_response(),
        None => (StatusCode::NOT_FOUND, "There is nothing here.\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_names_only_files_that_are_served() {
        let texts = FILES.iter().map(|file| file.text);
        let documents = [include_str!("assets/index.html"), include_str!("assets/login.html")];
        for text in texts.chain(documents) {
            for scheme in ["http://", "https://", "//cdn", "data:"] {
                let outside = text
                    .match_indices(scheme)
                    .map(|(at, _)| &text[at..(at + 40).min(text.len())]);
                // A namespace is a name, and nobody asks there for anything.
                let outside: Vec<_> = outside
                    .filter(|found| !found.starts_with("http://www.w3.org/"))
                    .collect();
                assert!(outside.is_empty(), "{outside:?}");
            }
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                " style=\"",
                "<style",
                "onclick=",
            ] {
                assert!(!text.contains(forbidden), "{forbidden} in a file of the page");
            }
            for (at, _) in text.match_indices("from './") {
                let name = text[at + 8..].split('\'').next().unwrap();
                assert!(
                    FILES.iter().any(|file| file.path == format!("/{name}")),
                    "{name} is not served"
                );
            }
        }
    }
}
