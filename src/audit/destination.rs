//! The two places that the audit log can be written to.

use std::{
    fmt::{self, Display},
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    str::FromStr,
};

/// Where to write the audit log, as `--audit-log` takes it: `-` for standard output, else a file's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditLogTarget {
    /// A file, appended to, created with mode 0600 (as kube-apiserver does its audit log: records name users), and
    /// opened anew when the path leads to another file, as after logrotate has renamed it.
    File(PathBuf),
    /// Standard output.
    Stdout,
}

impl AuditLogTarget {
    pub(super) fn destination(&self) -> Result<Box<dyn Destination>, OpenError> {
        match self {
            Self::File(path) => Ok(Box::new(LogFile::open(path)?)),
            Self::Stdout => Ok(Box::new(Stdout::open().map_err(OpenError::Stdout)?)),
        }
    }
}

impl FromStr for AuditLogTarget {
    type Err = EmptyPath;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Err(EmptyPath),
            "-" => Ok(Self::Stdout),
            path => Ok(Self::File(path.into())),
        }
    }
}

impl Display for AuditLogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Stdout => f.write_str("-"),
        }
    }
}

/// `--audit-log` with an empty value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a file's path, or - for standard output")]
pub struct EmptyPath;

/// Why the audit log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be opened for appending.
    #[error(
        "--audit-log {}: cannot be opened for appending; give a file in a folder that exists and may be written, or -",
        path.display()
    )]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something that takes no lines, or would wait for a reader.
    #[error("--audit-log {}: is a {kind}; give a file, or - for standard output", path.display())]
    Kind {
        /// What was given.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// Standard output is closed.
    #[error("--audit-log -: standard output cannot be written")]
    Stdout(#[source] io::Error),
    /// No thread for the writer.
    #[error("--audit-log: no thread can be started for its writer; raise the limit on threads")]
    Thread(#[source] io::Error),
}

/// Where the writer thread writes lines.
pub(super) trait Destination: Display + Send {
    /// Makes ready for a batch that begins with a whole line.
    fn prepare(&mut self) -> io::Result<()>;

    /// Writes some of the bytes, as [`Write::write`] does.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// An attempt failed, perhaps in the middle of a line: begin anew at the next [`Destination::prepare`].
    fn reopen(&mut self);
}

/// A file that follows its path.
struct LogFile {
    path: PathBuf,
    /// The open file, with its device and inode; none after an error.
    open: Option<(File, (u64, u64))>,
}

impl LogFile {
    fn open(path: &Path) -> Result<Self, OpenError> {
        let fail = |source| OpenError::File {
            path: path.to_owned(),
            source,
        };
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                return Err(OpenError::Kind {
                    path: path.to_owned(),
                    kind: "folder",
                });
            }
            // Opening one would wait until somebody reads from it.
            Ok(metadata) if metadata.file_type().is_fifo() => {
                return Err(OpenError::Kind {
                    path: path.to_owned(),
                    kind: "named pipe",
                });
            }
            _ => {}
        }
        let mut file = Self {
            path: path.to_owned(),
            open: None,
        };
        file.prepare().map_err(fail)?;
        Ok(file)
    }

    fn follow(&self) -> io::Result<(File, (u64, u64))> {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)?;
        let metadata = file.metadata()?;
        if metadata.is_file() && metadata.len() > 0 && !self.ends_with_newline()? {
            file.write_all(b"\n")?;
        }
        Ok((file, identity(&metadata)))
    }

    /// False after a crash or an error in the middle of a line.
    fn ends_with_newline(&self) -> io::Result<bool> {
        let mut last = [0];
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            // One may be allowed to append and not to read.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(true),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        Ok(last == *b"\n")
    }
}

impl Display for LogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

impl Destination for LogFile {
    fn prepare(&mut self) -> io::Result<()> {
        let open = self.open.as_ref().map(|(_, identity)| *identity);
        let at_path = fs::metadata(&self.path).ok().as_ref().map(identity);
        if open.is_none() || open != at_path {
            self.open = Some(self.follow()?);
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.open {
            Some((file, _)) => file.write(bytes),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn reopen(&mut self) {
        self.open = None;
    }
}

fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Standard output, without the buffer of [`std::io::Stdout`], which would hold lines back.
struct Stdout {
    file: File,
    in_line: bool,
}

impl Stdout {
    fn open() -> io::Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self { file, in_line: false })
    }
}

impl Display for Stdout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output")
    }
}

impl Destination for Stdout {
    fn prepare(&mut self) -> io::Result<()> {
        if self.in_line {
            self.file.write_all(b"\n")?;
            self.in_line = false;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        if let Some(last) = bytes[..written].last() {
            self.in_line = *last != b'\n';
        }
        Ok(written)
    }

    fn reopen(&mut self) {}
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn write_line(destination: &mut dyn Destination, line: &str) {
        destination.prepare().unwrap();
        assert_eq!(destination.write(line.as_bytes()).unwrap(), line.len());
    }

    fn open(path: &Path) -> Box<dyn Destination> {
        AuditLogTarget::File(path.to_owned()).destination().unwrap()
    }

    #[test]
    fn the_flag_takes_a_path_or_a_dash() {
        assert_eq!("-".parse(), Ok(AuditLogTarget::Stdout));
        assert_eq!(
            "/var/log/a".parse(),
            Ok(AuditLogTarget::File("/var/log/a".into()))
        );
        assert_eq!("".parse::<AuditLogTarget>(), Err(EmptyPath));
    }

    #[test]
    fn a_file_is_created_for_its_owner_alone_and_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        write_line(&mut *open(&path), "one\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        write_line(&mut *open(&path), "two\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_renamed_file_is_left_behind_and_a_new_one_begun() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let rotated = folder.path().join("audit.log.1");
        let mut file = open(&path);
        write_line(&mut *file, "one\n");
        fs::rename(&path, &rotated).unwrap();
        write_line(&mut *file, "two\n");
        // logrotate's `create` puts an empty file in place.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        write_line(&mut *file, "three\n");
        // And `copytruncate` empties the file that is there.
        File::create(&path).unwrap();
        write_line(&mut *file, "four\n");
        assert_eq!(fs::read_to_string(&rotated).unwrap(), "one\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "four\n");
    }

    #[test]
    fn a_line_that_was_torn_stands_on_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        fs::write(&path, "one\n{\"to").unwrap();
        let mut file = open(&path);
        write_line(&mut *file, "two\n{\"mo");
        file.reopen();
        write_line(&mut *file, "three\n");
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "one\n{\"to\ntwo\n{\"mo\nthree\n"
        );
    }

    #[test]
    fn what_cannot_be_opened_is_named_with_its_flag() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing/audit.log");
        let error = AuditLogTarget::File(missing.clone()).destination().err().unwrap();
        assert!(
            error
                .to_string()
                .contains(&format!("--audit-log {}", missing.display())),
            "{error}"
        );
        let error = AuditLogTarget::File(folder.path().to_owned())
            .destination()
            .err()
            .unwrap();
        assert!(error.to_string().contains("is a folder"), "{error}");
    }
}
