//! Files that are re-read while serving.
//!
//! They are read every few seconds and compared by their bytes. They are never watched: a Secret or ConfigMap
//! is mounted as symlinks through `..data`, which the kubelet swaps, and an inotify watch on the file sees
//! the old inode only (`k8s.io/kubernetes/pkg/volume/util/atomic_writer.go`).

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

/// Longest file that is read, in bytes: what a Secret or a ConfigMap can hold.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// How often files are read again while a swap is under way.
const READ_ATTEMPTS: usize = 3;

/// A file with the flag that named it, so that every message names both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// For example `--tls-cert-file`.
    pub flag: &'static str,
    /// Where it is.
    pub path: PathBuf,
}

impl NamedFile {
    /// The file at `path`, which `flag` named.
    pub fn new(flag: &'static str, path: impl Into<PathBuf>) -> Self {
        Self {
            flag,
            path: path.into(),
        }
    }

    fn read(&self) -> Result<Vec<u8>, ReadError> {
        let failed = |error| ReadError {
            file: self.clone(),
            error,
        };
        let mut bytes = Vec::new();
        let file = File::open(&self.path).map_err(failed)?;
        file.take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(failed(io::Error::other(format!(
                "it is longer than {MAX_FILE_BYTES} bytes"
            ))));
        }
        Ok(bytes)
    }
}

impl fmt::Display for NamedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.flag, self.path.display())
    }
}

/// A file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{file}: cannot be read: {error}; give the path of a file that this process may read")]
pub struct ReadError {
    file: NamedFile,
    error: io::Error,
}

/// Reads files that belong together: all from before a swap, or all from after it.
///
/// # Errors
/// When one of them cannot be read.
pub(super) fn read_together<const N: usize>(files: &[&NamedFile; N]) -> Result<[Vec<u8>; N], ReadError> {
    let mut contents = read_each(files)?;
    for _ in 1..READ_ATTEMPTS {
        let again = read_each(files)?;
        if again == contents {
            break;
        }
        contents = again;
    }
    Ok(contents)
}

fn read_each<const N: usize>(files: &[&NamedFile; N]) -> Result<[Vec<u8>; N], ReadError> {
    let mut contents = [const { Vec::new() }; N];
    for (content, file) in contents.iter_mut().zip(files) {
        *content = file.read()?;
    }
    Ok(contents)
}

/// What a look at files that are polled came to.
#[derive(Debug)]
pub enum Poll<E> {
    /// They were read anew and are in use. What they hold is other than before, or good again.
    Loaded,
    /// They cannot be used; what was in use stays. Told once for each reason, not at each look.
    Refused(E),
    /// Nothing new.
    Unchanged,
}

/// Remembers what was last used and what was last refused, so that each change is told once.
#[derive(Debug)]
pub(super) struct Seen<const N: usize> {
    in_use: [Vec<u8>; N],
    refused: Option<String>,
}

impl<const N: usize> Seen<N> {
    pub(super) fn new(in_use: [Vec<u8>; N]) -> Self {
        Self {
            in_use,
            refused: None,
        }
    }

    /// Takes in what was `read`, and puts it to use with `load` if it is not what is in use.
    pub(super) fn take_in<E: fmt::Display>(
        &mut self,
        read: Result<[Vec<u8>; N], E>,
        load: impl FnOnce(&[Vec<u8>; N]) -> Result<(), E>,
    ) -> Poll<E> {
        let outcome = read.and_then(|contents| {
            if contents == self.in_use {
                return Ok(false);
            }
            load(&contents)?;
            self.in_use = contents;
            Ok(true)
        });
        match outcome {
            Ok(changed) => {
                let was_refused = self.refused.take().is_some();
                if changed || was_refused {
                    Poll::Loaded
                } else {
                    Poll::Unchanged
                }
            }
            Err(error) => {
                let reason = error.to_string();
                if self.refused.as_ref() == Some(&reason) {
                    return Poll::Unchanged;
                }
                self.refused = Some(reason);
                Poll::Refused(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_once_and_what_was_good_stays() {
        let mut seen = Seen::new([b"1".to_vec()]);
        let mut look = |read: Result<&str, &str>| {
            let read = read.map(|text| [text.as_bytes().to_vec()]).map_err(str::to_owned);
            let judge = |contents: &[Vec<u8>; 1]| match contents[0].as_slice() {
                b"bad" => Err("bad".to_owned()),
                _ => Ok(()),
            };
            match seen.take_in(read, judge) {
                Poll::Loaded => "loaded".to_owned(),
                Poll::Refused(reason) => format!("refused: {reason}"),
                Poll::Unchanged => "unchanged".to_owned(),
            }
        };
        assert_eq!(look(Ok("1")), "unchanged");
        assert_eq!(look(Ok("2")), "loaded");
        assert_eq!(look(Ok("2")), "unchanged");
        assert_eq!(look(Ok("bad")), "refused: bad");
        assert_eq!(look(Ok("bad")), "unchanged");
        assert_eq!(look(Err("gone")), "refused: gone");
        assert_eq!(
            look(Ok("2")),
            "loaded",
            "what is in use is there again: good news"
        );
        assert_eq!(look(Ok("2")), "unchanged");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_its_flag() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("absent");
        let error = read_together(&[&NamedFile::new("--some-file", &path)]).unwrap_err();
        let expected = format!("--some-file {}: cannot be read: ", path.display());
        assert!(error.to_string().starts_with(&expected), "{error}");

        std::fs::write(&path, vec![b'a'; (1 << 20) + 1]).unwrap();
        let error = read_together(&[&NamedFile::new("--some-file", &path)]).unwrap_err();
        assert!(error.to_string().contains("longer than 1048576 bytes"), "{error}");
    }
}
