//! Files that are written: complete under their name, or not at all.

use std::{
    borrow::Cow,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
};

use super::{GgufError, Outline, TensorInfo};

impl Outline {
    /// Writes the file `path`. `data` gives the bytes of each tensor, in the order of the file, so that
    /// one tensor is in memory at a time.
    ///
    /// The file is built in a folder of its own beside `path` and renamed when it is complete: `path`
    /// holds its former content or the whole file. Missing parent folders are created. Nothing is
    /// flushed to the device, so this is about failures of the program and a full disk, not about a
    /// loss of power.
    ///
    /// # Errors
    /// [`GgufError::TensorData`] if bytes do not have the tensor's size, [`GgufError::Write`], or what
    /// `data` returns.
    pub fn write<'a, E: From<GgufError>>(
        &self,
        path: &Path,
        mut data: impl FnMut(&TensorInfo) -> Result<Cow<'a, [u8]>, E>,
    ) -> Result<(), E> {
        let write_error = |source| GgufError::Write { path: path.to_owned(), source };
        let target = resolve(path).map_err(write_error)?;
        if fs::metadata(&target).is_ok_and(|found| !found.is_file()) {
            return Err(GgufError::NotAFile { path: path.to_owned() }.into());
        }
        let parent = target.parent().unwrap_or(&target);
        fs::create_dir_all(parent).map_err(write_error)?;
        // A folder and not a file, so that the file has the permissions of any new one.
        let room = tempfile::Builder::new().prefix(".gamma-").tempdir_in(parent).map_err(write_error)?;
        let staged = room.path().join("new");
        let mut out = BufWriter::new(File::create(&staged).map_err(write_error)?);
        out.write_all(self.header()).map_err(write_error)?;
        for tensor in self.tensors() {
            let bytes = data(tensor)?;
            let (expected, found) = (tensor.bytes(), bytes.len() as u64);
            let invalid = |source| GgufError::Invalid { path: path.to_owned(), source };
            let expected = expected.map_err(invalid)?;
            if expected != found {
                return Err(GgufError::TensorData { tensor: tensor.name.clone(), expected, found }.into());
            }
            let padding = found.next_multiple_of(self.alignment()) - found;
            out.write_all(&bytes).map_err(write_error)?;
            io::copy(&mut io::Read::take(io::repeat(0), padding), &mut out).map_err(write_error)?;
        }
        out.flush().and_then(|()| fs::rename(&staged, &target)).map_err(write_error)?;
        Ok(())
    }

    /// The whole file in memory; see [`write`](Self::write).
    ///
    /// # Errors
    /// As [`write`](Self::write), but for the file system.
    pub fn to_bytes<'a>(
        &self,
        mut data: impl FnMut(&TensorInfo) -> Cow<'a, [u8]>,
    ) -> Result<Vec<u8>, GgufError> {
        let mut out = self.header().to_vec();
        for (tensor, &offset) in self.tensors().iter().zip(self.offsets()) {
            debug_assert_eq!(out.len() as u64, offset, "tensors follow each other");
            let bytes = data(tensor);
            let found = bytes.len() as u64;
            match tensor.bytes() {
                Ok(expected) if expected == found => {}
                expected => {
                    let expected = expected.unwrap_or(0);
                    return Err(GgufError::TensorData { tensor: tensor.name.clone(), expected, found });
                }
            }
            out.extend_from_slice(&bytes);
            out.resize(out.len().next_multiple_of(self.alignment() as usize), 0);
        }
        Ok(out)
    }
}

/// Follows links, so that what they point at is replaced and not the link.
fn resolve(path: &Path) -> io::Result<std::path::PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::path::absolute(path),
        result => result,
    }
}
