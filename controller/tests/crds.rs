//! The CRDs that people apply are the ones that the code means.

use std::fs;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/crds.yaml");

#[test]
fn crds_are_up_to_date() {
    let current = nanoseg::cli::crd_yaml().unwrap();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(FILE, current).unwrap();
        return;
    }
    let committed = fs::read_to_string(FILE).unwrap_or_default();
    assert!(
        committed == current,
        "manifests/crds.yaml is not what the code says; run: UPDATE=1 cargo test -p nanoseg --test crds"
    );
}
