//! What commands read: files, of which `-` is standard input.

use std::path::{Path, PathBuf};

/// Whether a file that was named is standard input.
pub(super) fn is_standard_input(file: &Path) -> bool {
    file == Path::new("-")
}

/// Refuses to read standard input more than once: the second time there would be nothing.
///
/// # Errors
/// When it is named more than once.
pub(super) fn ensure_standard_input_once<'a>(
    files: impl IntoIterator<Item = &'a PathBuf>,
) -> anyhow::Result<()> {
    let given = files.into_iter().filter(|file| is_standard_input(file));
    anyhow::ensure!(
        given.count() <= 1,
        "standard input (-) is given twice, and can be read only once"
    );
    Ok(())
}
