//! What does not fit into memory: a file without a name, which is gone when the process is, however it
//! ends.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use burn::tensor::{Device, Tensor, TensorData};
use gamma_preference::Aside;

use crate::{Error, observe::floats};

/// A file that takes pieces of bytes and gives them back.
pub(crate) struct Spill {
    folder: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    file: File,
    end: u64,
    /// Places that were given back, by their length.
    free: BTreeMap<u64, Vec<u64>>,
}

/// Where a piece lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    start: u64,
    length: u64,
}

impl fmt::Debug for Spill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spill").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Spill {
    /// A new file in `folder`, which is made if it is not there.
    pub(crate) fn in_folder(folder: &Path) -> Result<Self, Error> {
        let open = || {
            fs::create_dir_all(folder)?;
            tempfile::tempfile_in(folder)
        };
        let file = open().map_err(|source| Error::Write { path: folder.to_owned(), source })?;
        let inner = Mutex::new(Inner { file, end: 0, free: BTreeMap::new() });
        Ok(Self { folder: folder.to_owned(), inner })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // The file and the list of places agree between any two calls.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores `pieces` one after the other.
    pub(crate) fn write(&self, pieces: &[&[u8]]) -> Result<Place, Error> {
        let mut inner = self.inner();
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        let free = inner.free.get_mut(&length).and_then(Vec::pop);
        let start = free.unwrap_or(inner.end);
        let mut write = || {
            inner.file.seek(SeekFrom::Start(start))?;
            pieces.iter().try_for_each(|piece| inner.file.write_all(piece))
        };
        write().map_err(|source| Error::Write { path: self.folder.clone(), source })?;
        inner.end = inner.end.max(start + length);
        Ok(Place { start, length })
    }

    /// What lies at `place`.
    pub(crate) fn read(&self, place: Place) -> Result<Vec<u8>, Error> {
        let mut inner = self.inner();
        let mut bytes = vec![0; usize::try_from(place.length).unwrap_or(usize::MAX)];
        let mut read = || -> io::Result<()> {
            inner.file.seek(SeekFrom::Start(place.start))?;
            inner.file.read_exact(&mut bytes)
        };
        read().map_err(|source| Error::Read { path: self.folder.clone(), source })?;
        Ok(bytes)
    }

    /// Gives a place back for a piece of the same length.
    pub(crate) fn free(&self, place: Place) {
        self.inner().free.entry(place.length).or_default().push(place.start);
    }

    /// Bytes that the file takes.
    #[cfg(test)]
    pub(crate) fn size(&self) -> u64 {
        self.inner().end
    }
}

/// Hidden states that wait: in memory as long as there is room, else in a file.
#[derive(Debug)]
pub(crate) struct Shelf<'a> {
    spill: Option<&'a Spill>,
    device: Device,
    /// Bytes that may still be held.
    room: u64,
    stored: BTreeMap<u64, (Place, [usize; 3])>,
    next: u64,
}

impl<'a> Shelf<'a> {
    /// A shelf that holds up to `room` bytes in memory, all where there is no file.
    pub(crate) fn new(spill: Option<&'a Spill>, room: u64, device: &Device) -> Self {
        Self { spill, device: device.clone(), room, stored: BTreeMap::new(), next: 0 }
    }

    pub(crate) fn put(&mut self, hidden: Tensor<3>) -> Result<Aside, Error> {
        let Some(spill) = self.spill else { return Ok(Aside::Here(Box::new(hidden))) };
        let size = bytes_of(&hidden);
        if let Some(room) = self.room.checked_sub(size) {
            self.room = room;
            return Ok(Aside::Here(Box::new(hidden)));
        }
        let shape = hidden.dims();
        let values: Vec<u8> = floats(hidden).iter().flat_map(|value| value.to_le_bytes()).collect();
        self.stored.insert(self.next, (spill.write(&[&values])?, shape));
        self.next += 1;
        Ok(Aside::Elsewhere(self.next - 1))
    }

    pub(crate) fn take(&mut self, aside: Aside) -> Result<Tensor<3>, Error> {
        let number = match aside {
            Aside::Here(hidden) => {
                self.leave(&hidden);
                return Ok(*hidden);
            }
            Aside::Elsewhere(number) => number,
        };
        let (place, shape) = self.stored.remove(&number).expect("each number is given back once");
        let spill = self.spill.expect("numbers are given where there is a file");
        let bytes = spill.read(place)?;
        spill.free(place);
        let values: Vec<f32> = bytes.as_chunks().0.iter().map(|&value| f32::from_le_bytes(value)).collect();
        Ok(Tensor::from_data(TensorData::new(values, shape), &self.device))
    }

    /// Gives up what nobody needs any more.
    pub(crate) fn forget(&mut self, aside: Aside) {
        match aside {
            Aside::Here(hidden) => self.leave(&hidden),
            Aside::Elsewhere(number) => {
                if let (Some(spill), Some((place, _))) = (self.spill, self.stored.remove(&number)) {
                    spill.free(place);
                }
            }
        }
    }

    /// Makes room for as much as `hidden` takes.
    fn leave(&mut self, hidden: &Tensor<3>) {
        if self.spill.is_some() {
            self.room += bytes_of(hidden);
        }
    }
}

impl Drop for Shelf<'_> {
    fn drop(&mut self) {
        if let Some(spill) = self.spill {
            self.stored.values().for_each(|&(place, _)| spill.free(place));
        }
    }
}

fn bytes_of(hidden: &Tensor<3>) -> u64 {
    4 * hidden.dims().iter().product::<usize>() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shelved_comes_back_bit_for_bit_and_places_are_used_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let (device, spill) = (gamma_device::tested(), Spill::in_folder(folder.path()).expect("a file"));
        assert_eq!(fs::read_dir(folder.path()).expect("reads").count(), 0, "the file has no name");
        let state = |seed: u32| {
            let values: Vec<f32> = (0..24).map(|i| f32::from_bits(0x3f80_0001 + 977 * (i + seed))).collect();
            Tensor::<3>::from_data(TensorData::new(values, [2, 3, 4]), &device)
        };
        // Room for one of three.
        let mut shelf = Shelf::new(Some(&spill), 100, &device);
        for round in 0..3 {
            let kept: Vec<Aside> = (0..3).map(|i| shelf.put(state(i + round)).expect("kept")).collect();
            assert_eq!(kept.iter().filter(|kept| matches!(kept, Aside::Here(_))).count(), 1);
            for (i, kept) in (0..).zip(kept) {
                let back = shelf.take(kept).expect("there");
                assert_eq!((back.dims(), floats(back)), ([2, 3, 4], floats(state(i + round))));
            }
        }
        assert_eq!(spill.size(), 2 * 96);
        let kept: Vec<Aside> = (0..3).map(|i| shelf.put(state(i)).expect("kept")).collect();
        kept.into_iter().take(2).for_each(|kept| shelf.forget(kept));
        drop(shelf);
        let mut next = Shelf::new(Some(&spill), 0, &device);
        let _ = [next.put(state(0)).expect("kept"), next.put(state(1)).expect("kept")];
        assert_eq!(spill.size(), 2 * 96, "a shelf leaves its places to the next one");
        let mut all = Shelf::new(None, 0, &device);
        assert!(matches!(all.put(state(0)).expect("kept"), Aside::Here(_)));
    }
}
