//! Who a learner is, by the token that its pod was given.
//!
//! Law: a node is what the API server says of the token, never what the report says; whatever the API server does not confirm is
//! refused.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Client;
use kube::api::{Api, PostParams};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tonic::Status;

use crate::trouble::Trouble;

/// What a learner's token is to be bound to.
pub const AUDIENCE: &str = "nanoseg-controller";
/// The learners' `ServiceAccount`.
const ACCOUNT: &str = "nanoseg-learner";
/// Where the API server says which node the token's pod was bound to.
const NODE: &str = "authentication.kubernetes.io/node-name";

/// How long an answer is believed for a new stream: a deleted pod's token opens one for this long.
const BELIEVED: Duration = Duration::from_mins(1);
/// How often a stream's token is asked about again: eight questions a second from 5,000 learners.
pub const ASKED_AGAIN: Duration = Duration::from_mins(10);
/// Answers that are kept at a time: twice the nodes of the largest clusters.
const KEPT: usize = 10_000;
/// Questions under way at once: a flood of false tokens is not to become one of the API server.
const AT_ONCE: usize = 8;

/// Why a learner is not recognised.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no token.
    #[error("no token came with the stream: give the learner --controller-token")]
    NoToken,
    /// The API server does not know it, or not for this audience.
    #[error("the token is not valid for audience {AUDIENCE}")]
    NotValid,
    /// It is somebody else's.
    #[error("{0} is not the learners' ServiceAccount")]
    Account(String),
    /// It is not bound to a pod on a node.
    #[error("the token is not bound to a pod on a node: it has to be a projected token, on Kubernetes 1.30 or later")]
    NoNode,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The learner is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The API server cannot be asked.
    #[error("cannot ask the API server whose token it is")]
    Ask(#[source] Trouble),
}

impl From<IdentityError> for Status {
    fn from(error: IdentityError) -> Self {
        match &error {
            IdentityError::Refused(Refusal::NoToken | Refusal::NotValid) => Self::unauthenticated(error.to_string()),
            IdentityError::Refused(Refusal::Account(_) | Refusal::NoNode) => Self::permission_denied(error.to_string()),
            // The learner keeps what it has and comes again.
            IdentityError::Ask(_) => Self::unavailable(crate::trouble::chain(&error)),
        }
    }
}

/// When it was given, and the node.
type Answer = (Instant, Result<String, Refusal>);

/// Asks the API server, and remembers the answer for a moment.
#[derive(Debug)]
pub struct Recogniser {
    reviews: Api<TokenReview>,
    account: String,
    known: Mutex<BTreeMap<[u8; 32], Answer>>,
    asking: Semaphore,
}

impl Recogniser {
    /// For learners in this namespace.
    pub fn new(client: &Client, namespace: &str) -> Self {
        Self {
            reviews: Api::all(client.clone()),
            account: format!("system:serviceaccount:{namespace}:{ACCOUNT}"),
            known: Mutex::default(),
            asking: Semaphore::new(AT_ONCE),
        }
    }

    /// The node that a learner with this token is on.
    pub async fn node(&self, token: &str) -> Result<String, IdentityError> {
        // Only a digest is kept: memory that leaks lends nobody a token.
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(answer) = self.remembered(&digest) {
            return Ok(answer?);
        }
        // The semaphore is never closed.
        let _turn = self.asking.acquire().await;
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: Some(vec![AUDIENCE.to_owned()]),
            },
            ..TokenReview::default()
        };
        let reviewed = self
            .reviews
            .create(&PostParams::default(), &review)
            .await
            .map_err(|error| IdentityError::Ask(error.into()))?;
        let answer = node(&reviewed.status.unwrap_or_default(), &self.account);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (since, _)| since.elapsed() < BELIEVED);
        if known.len() < KEPT {
            known.insert(digest, (Instant::now(), answer.clone()));
        }
        Ok(answer?)
    }

    fn remembered(&self, digest: &[u8; 32]) -> Option<Result<String, Refusal>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, answer) = known.get(digest)?;
        (since.elapsed() < BELIEVED).then(|| answer.clone())
    }
}

fn node(status: &TokenReviewStatus, account: &str) -> Result<String, Refusal> {
    let for_us = status.audiences.iter().flatten().any(|audience| audience == AUDIENCE);
    let user = status
        .user
        .as_ref()
        .filter(|_| status.authenticated == Some(true) && for_us);
    let user = user.ok_or(Refusal::NotValid)?;
    let name = user.username.clone().unwrap_or_default();
    if name != account {
        return Err(Refusal::Account(name));
    }
    let nodes = user.extra.as_ref().and_then(|extra| extra.get(NODE));
    match nodes.map(Vec::as_slice) {
        Some([node]) if !node.is_empty() => Ok(node.clone()),
        Some(_) | None => Err(Refusal::NoNode),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_a_confirmed_token_of_a_learner_on_a_node_names_a_node() {
        let account = "system:serviceaccount:nanoseg:nanoseg-learner";
        let good = json!({
            "authenticated": true, "audiences": [AUDIENCE],
            "user": { "username": account, "extra": { NODE: ["node1"] } },
        });
        let ask = |change: Value| {
            let mut status = good.clone();
            for (key, value) in change.as_object().unwrap() {
                status[key] = value.clone();
            }
            node(&serde_json::from_value(status).unwrap(), account)
        };
        assert_eq!(ask(json!({})).as_deref(), Ok("node1"));
        assert_eq!(ask(json!({ "authenticated": false })), Err(Refusal::NotValid));
        // An authenticator that knows nothing of audiences confirms none.
        assert_eq!(ask(json!({ "audiences": [] })), Err(Refusal::NotValid));
        assert_eq!(ask(json!({ "audiences": ["other"] })), Err(Refusal::NotValid));
        assert_eq!(ask(json!({ "user": null })), Err(Refusal::NotValid));
        let other = "system:serviceaccount:other:nanoseg-learner";
        let user = json!({ "user": { "username": other, "extra": { NODE: ["node1"] } } });
        assert_eq!(ask(user), Err(Refusal::Account(other.to_owned())));
        for nodes in [json!(null), json!([]), json!([""]), json!(["a", "b"])] {
            let user = json!({ "user": { "username": account, "extra": { NODE: nodes } } });
            let user = if nodes.is_null() {
                json!({ "user": { "username": account } })
            } else {
                user
            };
            assert_eq!(ask(user), Err(Refusal::NoNode));
        }
    }
}
