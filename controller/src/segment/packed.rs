//! A status that is too large for an object, on its way to the API server and back.
//!
//! Law: reading back what was written gives the same status, and what is written stays well below what an API server takes.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use k8s_openapi::ByteString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{LISTED, LearnedEdge, SegmentStatus};

/// Edges that a status lists in full. An edge takes about 300 bytes, and etcd takes objects of 1.5 MiB
/// (`--max-request-bytes`) unless it is told otherwise.
const EDGES: usize = 1000;

/// Bytes of a proposal that a status carries as text.
const PROPOSAL: usize = 512 * 1024;

/// No honest status is larger than this, and nobody's fills the memory.
const UNPACKED: u64 = 64 * 1024 * 1024;

/// What is packed.
#[derive(Serialize, Deserialize)]
struct Packed {
    baseline: Vec<LearnedEdge>,
    proposal: Option<String>,
}

/// Why a packed status cannot be read.
#[derive(Debug, thiserror::Error)]
enum PackedError {
    #[error("packed: it is not gzip of at most {UNPACKED} bytes")]
    Gzip(#[source] std::io::Error),
    #[error("packed: it does not hold a baseline and a proposal")]
    Json(#[source] serde_json::Error),
}

impl Serialize for SegmentStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let is_large = self.baseline.len() > EDGES || self.proposal.as_ref().is_some_and(|text| text.len() > PROPOSAL);
        if !is_large {
            return Self::serialize(self, serializer);
        }
        let mut status = self.clone();
        let mut packed = Packed {
            baseline: std::mem::take(&mut status.baseline),
            proposal: status.proposal.take(),
        };
        status.packed = Some(ByteString(pack(&packed).map_err(serde::ser::Error::custom)?));
        packed.baseline.truncate(LISTED);
        status.baseline = packed.baseline;
        Self::serialize(&status, serializer)
    }
}

impl<'de> Deserialize<'de> for SegmentStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut status = Self::deserialize(deserializer)?;
        if let Some(ByteString(bytes)) = status.packed.take() {
            let Packed { baseline, proposal } = unpack(&bytes).map_err(|error| {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                serde::de::Error::custom(format!("{error}{}", cause.unwrap_or_default()))
            })?;
            status.baseline = baseline;
            status.proposal = proposal;
        }
        // It is kept as long as its Segment is there.
        status.baseline.shrink_to_fit();
        Ok(status)
    }
}

/// The same bytes for the same content: there is no time in it.
fn pack(packed: &Packed) -> Result<Vec<u8>, std::io::Error> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&serde_json::to_vec(packed)?)?;
    gzip.finish()
}

fn unpack(bytes: &[u8]) -> Result<Packed, PackedError> {
    let mut text = Vec::new();
    let read = GzDecoder::new(bytes)
        .take(UNPACKED)
        .read_to_end(&mut text)
        .map_err(PackedError::Gzip)?;
    if read as u64 == UNPACKED {
        return Err(PackedError::Gzip(std::io::ErrorKind::FileTooLarge.into()));
    }
    serde_json::from_slice(&text).map_err(PackedError::Json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::hash_of_text;

    fn status(edges: usize, proposal: usize) -> SegmentStatus {
        let baseline: Vec<String> = (0..edges)
            .map(|number| {
                format!(
                    "{{source: \"team-{}/Deployment/client-{number}-{}\", destination: shop/StatefulSet/db, port: 5432, protocol: TCP, \
                     via: [shop/db], seenAt: [Source, Destination], firstSeen: 2026-01-01T00:00:00Z, count: {number}}}",
                    number % 70,
                    hash_of_text(&number.to_string()),
                )
            })
            .collect();
        let yaml = format!(
            "{{phase: Enforcing, learningSince: 2026-01-01T00:00:00Z, proposal: {}, baseline: [{}]}}",
            "x".repeat(proposal),
            baseline.join(",")
        );
        serde_yaml::from_str(&yaml).unwrap()
    }

    #[test]
    fn what_is_large_is_packed_and_nothing_of_it_is_lost() {
        // The names of real workloads repeat; the hashes in these do not.
        for (edges, proposal, is_packed) in [
            (10, 10, false),
            (1001, 10, true),
            (10, PROPOSAL + 1, true),
            (5000, 1_000_000, true),
        ] {
            let status = status(edges, proposal);
            let json = serde_json::to_value(&status).unwrap();
            assert_eq!(json.get("packed").is_some(), is_packed, "{edges} edges");
            let size = json.to_string().len();
            assert!(size < 1024 * 1024, "{edges} edges take {size} bytes");
            let read: SegmentStatus = serde_json::from_value(json).unwrap();
            assert_eq!((read.baseline.len(), read), (edges, status));
        }
    }

    #[test]
    fn what_cannot_be_unpacked_is_an_error_and_no_smaller_baseline() {
        let mut json = serde_json::to_value(status(1001, 10)).unwrap();
        let bombs = pack(&Packed {
            baseline: Vec::new(),
            proposal: Some("x".repeat(usize::try_from(UNPACKED).unwrap())),
        });
        for bytes in [b"no gzip".to_vec(), bombs.unwrap()] {
            json["packed"] = serde_json::to_value(ByteString(bytes)).unwrap();
            let error = serde_json::from_value::<SegmentStatus>(json.clone())
                .unwrap_err()
                .to_string();
            assert!(error.starts_with("packed: it is not gzip of at most"), "{error}");
        }
    }
}
