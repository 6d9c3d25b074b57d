//! Reading a policy document from a file.

use std::{fs, io::Read, path::Path};

use anyhow::Context;

use super::input::is_standard_input;
use crate::policy::Policy;

/// The largest policy that is read, in bytes: what fits into a ConfigMap
/// (`k8s.io/kubernetes/pkg/apis/core/validation`: `MaxSecretSize`, 1 MiB for both).
const LARGEST: u64 = 1024 * 1024;

/// Reads and checks a policy document; `-` is standard input.
///
/// # Errors
/// Names the file, and line and column of the first mistake.
pub(super) fn read(path: &Path) -> anyhow::Result<Policy> {
    Policy::parse(&text(path)?).with_context(|| named(path))
}

/// The file as errors name it.
pub(super) fn named(path: &Path) -> String {
    format!("policy file {}", path.display())
}

/// Reads a policy document unchecked; `-` is standard input.
///
/// # Errors
/// Names the file.
pub(super) fn text(path: &Path) -> anyhow::Result<String> {
    let named = || named(path);
    let mut document = String::new();
    let length = if is_standard_input(path) {
        std::io::stdin()
            .lock()
            .take(LARGEST + 1)
            .read_to_string(&mut document)
    } else {
        fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_string(&mut document))
    };
    let length = length.with_context(|| format!("{} cannot be read", named()))?;
    anyhow::ensure!(
        u64::try_from(length).is_ok_and(|length| length <= LARGEST),
        "{} is over {LARGEST} bytes, more than a ConfigMap holds",
        named()
    );
    Ok(document)
}
