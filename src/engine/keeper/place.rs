//! The place of a keeper: its path, who listens there, and the lock that says so.
//!
//! Whoever holds the lock beside the path is the keeper there. The listener and the lock go from a
//! keeper to its successor as they are, so that the path never vanishes; only the last keeper
//! removes both, and the lock file while it still holds it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::sys;

/// A path at which this process listens.
pub(super) struct Place {
    pub path: PathBuf,
    pub listener: OwnedFd,
    pub lock: OwnedFd,
}

impl Place {
    /// Listens at a path where nobody does. `None`: somebody is about to, or about to leave.
    pub fn settle_down(path: &Path) -> Result<Option<Self>> {
        let lock = open_lock(path)?;
        if !take_lock(&lock)? || !is_at(&lock, &lock_path(path)) {
            return Ok(None);
        }
        // Whoever left it does not run any more: the lock says so.
        let _ = fs::remove_file(path);
        Ok(Some(Place { path: path.to_owned(), listener: listen(path)?, lock: lock.into() }))
    }

    /// Takes the path from a keeper that still listens there.
    pub fn replace(path: &Path) -> Result<Self> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let _ = fs::remove_file(&beside);
        let listener = listen(&beside)?;
        let _ = fs::remove_file(lock_path(path)); // The old keeper holds the old file's lock.
        let lock = open_lock(path)?;
        if !take_lock(&lock)? {
            return Err(Error::io("locking the keeper's path", &io::ErrorKind::WouldBlock.into()));
        }
        fs::rename(&beside, path)
            .map_err(|error| Error::io(&format!("taking {}", path.display()), &error))?;
        Ok(Place { path: path.to_owned(), listener, lock: lock.into() })
    }

    /// Removes what others find it by. The lock is held until this is dropped.
    pub fn leave(&self) {
        // Their absence is what a stopped keeper looks like; nobody else uses them.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(lock_path(&self.path));
    }
}

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn open_lock(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(lock_path(path))
        .map_err(|error| Error::io(&format!("opening {}", lock_path(path).display()), &error))
}

fn take_lock(lock: &File) -> Result<bool> {
    sys::try_lock(lock).map_err(|error| Error::io("locking the keeper's path", &error))
}

/// Is it still this file? Its last owner may have removed it before it was locked here.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn listen(path: &Path) -> Result<OwnedFd> {
    sys::packet_listen(path)
        .map_err(|error| Error::io(&format!("listening at {}", path.display()), &error))
}
