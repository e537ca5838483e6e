//! Output that appears complete or not at all.
//!
//! Everything is first written to a staging folder beside the target, hence on the same file
//! system, and then renamed. The staging folder is removed however the export ends.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use safetensors::SafeTensorError;
use tempfile::TempDir;

use crate::ExportError;

/// Writes one file so that `path` holds either its former content or all of `content`.
///
/// Missing parent folders are created. A symbolic link is followed, and permissions are those of a
/// new file. Nothing is flushed to the device, so the promise is about failures of the program and
/// a full disk, not about a loss of power.
///
/// ```
/// let scratch = tempfile::tempdir()?;
/// let path = scratch.path().join("runs/plan.json");
/// gamma_export::write_atomically(&path, b"{}")?;
/// assert_eq!(std::fs::read(&path)?, b"{}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`ExportError`] with the path, if it cannot be written or is not a plain file.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<(), ExportError> {
    let target = resolve(path)?;
    if fs::metadata(&target).is_ok_and(|found| !found.is_file()) {
        return Err(ExportError::NotAFile { path: path.to_owned() });
    }
    let room = Room::beside(&target)?;
    let staged = room.folder.path().join("new");
    fs::write(&staged, content).and_then(|()| fs::rename(&staged, &target)).map_err(write_error(path))?;
    room.leave();
    Ok(())
}

/// One large file in the making: written and checked under another name, then renamed.
#[derive(Debug)]
pub(crate) struct SoleFile {
    room: Room,
    target: PathBuf,
}

impl SoleFile {
    /// Prepares to write `target`, which must not exist unless it may be overwritten.
    pub(crate) fn beside(target: &Path, overwrite: bool) -> Result<Self, ExportError> {
        let resolved = resolve(target)?;
        match fs::metadata(&resolved) {
            Ok(found) if !found.is_file() => return Err(ExportError::NotAFile { path: target.to_owned() }),
            Ok(_) if !overwrite => return Err(ExportError::Exists { path: target.to_owned() }),
            _ => {}
        }
        Ok(Self { room: Room::beside(&resolved)?, target: resolved })
    }

    /// Where to write.
    pub(crate) fn staged(&self) -> PathBuf {
        self.room.folder.path().join("file")
    }

    /// Moves the file to its target.
    pub(crate) fn publish(self) -> Result<(), ExportError> {
        fs::rename(self.staged(), &self.target).map_err(write_error(&self.target))?;
        self.room.leave();
        Ok(())
    }
}

/// A folder in the making.
#[derive(Debug)]
pub(crate) struct Staging {
    room: Room,
    target: PathBuf,
    overwrite: bool,
}

impl Staging {
    /// Prepares to fill the folder `target`.
    pub(crate) fn for_target(target: &Path, overwrite: bool) -> Result<Self, ExportError> {
        let target = resolve(target)?;
        check_target(&target, overwrite)?;
        let room = Room::beside(&target)?;
        let staging = Self { room, target, overwrite };
        fs::create_dir(staging.folder()).map_err(write_error(&staging.target))?;
        Ok(staging)
    }

    fn folder(&self) -> PathBuf {
        self.room.folder.path().join("new")
    }

    /// Where the file `name` is until it is published.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Where everything will be.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Writes one small file.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<(), ExportError> {
        self.create(name)?.write_all(content).map_err(write_error(&self.target.join(name)))
    }

    /// Copies one file, with the permissions of a new one.
    pub(crate) fn copy(&self, name: &str, source: &Path) -> Result<(), ExportError> {
        let read_error = |error| ExportError::Read { path: source.to_owned(), source: error };
        let mut input = File::open(source).map_err(read_error)?;
        let mut output = self.create(name)?;
        io::copy(&mut input, &mut output).map_err(write_error(&self.target.join(name)))?;
        Ok(())
    }

    /// Lets `serialize` write the safetensors file `name` at the path it is given.
    pub(crate) fn write_safetensors(
        &self,
        name: &str,
        serialize: impl FnOnce(&Path) -> Result<(), SafeTensorError>,
    ) -> Result<(), ExportError> {
        let path = self.target.join(name);
        // The serializer makes a file that only its owner may read; an ordinary file under the same
        // name shows which permissions are usual here.
        let permissions = self.create(name)?.metadata().map_err(write_error(&path))?.permissions();
        let staged = self.folder().join(name);
        serialize(&staged).map_err(|error| match error {
            SafeTensorError::IoError(source) => ExportError::Write { path: path.clone(), source },
            source => ExportError::Safetensors { path: path.clone(), source },
        })?;
        fs::set_permissions(staged, permissions).map_err(write_error(&path))
    }

    fn create(&self, name: &str) -> Result<File, ExportError> {
        let staged = self.folder().join(name);
        File::create_new(staged).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => ExportError::FileTwice { name: name.to_owned() },
            _ => ExportError::Write { path: self.target.join(name), source },
        })
    }

    /// Names and sizes of the files so far, in order of their names.
    pub(crate) fn files(&self) -> Result<Vec<(String, u64)>, ExportError> {
        let list = || {
            let file = |entry: io::Result<fs::DirEntry>| {
                let entry = entry?;
                Ok((entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len()))
            };
            fs::read_dir(self.folder())?.map(file).collect::<io::Result<Vec<_>>>()
        };
        let mut files = list().map_err(write_error(&self.target))?;
        files.sort_unstable();
        Ok(files)
    }

    /// Moves the folder to its target.
    pub(crate) fn publish(self) -> Result<(), ExportError> {
        // Once more, because writing has taken its time.
        check_target(&self.target, self.overwrite)?;
        let (new, old) = (self.folder(), self.room.folder.path().join("old"));
        if self.target.exists() {
            fs::rename(&self.target, &old).map_err(write_error(&self.target))?;
            if let Err(error) = fs::rename(&new, &self.target) {
                return Err(self.restore(&old, error));
            }
        } else {
            fs::rename(&new, &self.target).map_err(write_error(&self.target))?;
        }
        let Self { room, target, .. } = self;
        room.leave_checked().map_err(|source| ExportError::LeftBehind { path: target, source })
    }

    /// Puts the former content back after `error`.
    fn restore(self, old: &Path, error: io::Error) -> ExportError {
        match fs::rename(old, &self.target) {
            Ok(()) => ExportError::Write { path: self.target, source: error },
            Err(source) => {
                let kept = self.room.keep().join("old");
                ExportError::NotRestored { path: self.target, kept, source }
            }
        }
    }
}

/// An absolute path whose existing part has no links and no `..`.
fn resolve(path: &Path) -> Result<PathBuf, ExportError> {
    let resolved = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::path::absolute(path),
        result => result,
    }
    .map_err(write_error(path))?;
    match resolved.file_name() {
        Some(_) => Ok(resolved),
        None => Err(ExportError::NoName { path: path.to_owned() }),
    }
}

/// Refuses a target that is in use.
fn check_target(target: &Path, overwrite: bool) -> Result<(), ExportError> {
    let path = || target.to_owned();
    let entries = match fs::read_dir(target) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(ExportError::NotAFolder { path: path() });
        }
        Err(source) => return Err(ExportError::Read { path: path(), source }),
    };
    for entry in entries {
        let entry = entry.map_err(|source| ExportError::Read { path: path(), source })?;
        if !overwrite {
            return Err(ExportError::NotEmpty { path: path() });
        }
        // An export never holds folders. This one is somebody's home, or a folder of models.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let folder = entry.file_name().to_string_lossy().into_owned();
            return Err(ExportError::HoldsFolders { path: path(), folder });
        }
    }
    Ok(())
}

/// A private folder beside a target, removed when dropped, along with the parents made for it.
#[derive(Debug)]
struct Room {
    // Fields are dropped in this order.
    folder: TempDir,
    parents: NewParents,
}

impl Room {
    fn beside(target: &Path) -> Result<Self, ExportError> {
        let parent = target.parent().unwrap_or(target);
        let parents = NewParents::create(parent).map_err(write_error(target))?;
        let folder =
            tempfile::Builder::new().prefix(".gamma-").tempdir_in(parent).map_err(write_error(target))?;
        Ok(Self { folder, parents })
    }

    /// Removes the room and keeps the parents.
    fn leave(mut self) {
        self.parents.0.clear();
    }

    fn leave_checked(mut self) -> io::Result<()> {
        self.parents.0.clear();
        self.folder.close()
    }

    /// Keeps everything, and tells where.
    fn keep(mut self) -> PathBuf {
        self.parents.0.clear();
        self.folder.keep()
    }
}

/// Folders that did not exist before, innermost first.
#[derive(Debug)]
struct NewParents(Vec<PathBuf>);

impl NewParents {
    fn create(parent: &Path) -> io::Result<Self> {
        let missing = parent.ancestors().take_while(|folder| !folder.exists());
        let new = Self(missing.map(Path::to_owned).collect());
        fs::create_dir_all(parent)?;
        Ok(new)
    }
}

impl Drop for NewParents {
    fn drop(&mut self) {
        for folder in &self.0 {
            // Not empty means that somebody else uses it by now.
            let _ = fs::remove_dir(folder);
        }
    }
}

fn write_error(path: &Path) -> impl Fn(io::Error) -> ExportError + use<> {
    let path = path.to_owned();
    move |source| ExportError::Write { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_former_folder_comes_back_if_the_new_one_cannot_take_its_place() {
        let scratch = tempfile::tempdir().unwrap();
        let target = scratch.path().join("out");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("old.txt"), "old").unwrap();
        let staging = Staging::for_target(&target, true).unwrap();
        staging.write("new.txt", b"new").unwrap();
        fs::remove_dir_all(staging.folder()).unwrap();
        let error = staging.publish().unwrap_err();
        assert!(matches!(error, ExportError::Write { .. }), "{error}");
        assert_eq!(fs::read(target.join("old.txt")).unwrap(), b"old");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_target_that_came_into_use_meanwhile_is_kept() {
        let scratch = tempfile::tempdir().unwrap();
        let target = scratch.path().join("parent/out");
        let staging = Staging::for_target(&target, false).unwrap();
        staging.write("new.txt", b"new").unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(target.join("other.txt"), "other").unwrap();
        let error = staging.publish().unwrap_err();
        assert!(matches!(error, ExportError::NotEmpty { .. }), "{error}");
        assert_eq!(fs::read(target.join("other.txt")).unwrap(), b"other");
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_failing_serializer_leaves_nothing_and_names_the_target() {
        let scratch = tempfile::tempdir().unwrap();
        let staging = Staging::for_target(&scratch.path().join("out"), false).unwrap();
        let full = || SafeTensorError::IoError(io::ErrorKind::StorageFull.into());
        let error = staging.write_safetensors("model.safetensors", |_| Err(full())).unwrap_err();
        assert!(
            matches!(&error, ExportError::Write { path, .. } if path.ends_with("out/model.safetensors")),
            "{error}"
        );
        drop(staging);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }
}
