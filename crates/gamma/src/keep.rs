//! The state of a learning run in a file, so that an interrupted run can be gone on with.
//!
//! The file's first line is JSON: where the run came from, in the words of a score file, and a hash
//! of what follows, the state itself. It is written under another name and then renamed.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use gamma_core::{Digest, Provenance};
use gamma_preference::{State, Step};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Error, Event, Progress};

/// Where a learning run keeps its state, and what becomes of a state that is there already.
///
/// | setter | default |
/// |---|---|
/// | [`every`](Self::every) | 30 seconds |
/// | [`found`](Self::found) | [`Found::Continue`] |
///
/// The state is small: what was learned and seen so far, some megabytes for a large model. What is
/// not in it is made again: the candidates, the statistics that they come from, sampled calibration
/// text, and the full-precision hidden states.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct StateFile {
    path: PathBuf,
    every: Duration,
    found: Found,
}

/// What becomes of a state that an interrupted run has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Found {
    /// A state of exactly this run is gone on with, which does not change the result; one of another
    /// run is refused; without one, learning begins.
    #[default]
    Continue,
    /// The same, but there has to be one.
    Require,
    /// Learning begins anew, and whatever is there is replaced.
    Replace,
}

impl StateFile {
    /// Keeps the state in the file `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), every: Duration::from_secs(30), found: Found::default() }
    }

    /// Time between two writes, at least: a state is written wherever learning can be taken up again
    /// and this time has passed.
    pub fn every(mut self, interval: Duration) -> Self {
        self.every = interval;
        self
    }

    /// What becomes of a state that is there already.
    pub fn found(mut self, found: Found) -> Self {
        self.found = found;
        self
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the state, once it is of no more use. Nothing happens if there is none.
    ///
    /// # Errors
    /// [`Error::Write`] if the file cannot be removed.
    pub fn remove(&self) -> Result<(), Error> {
        for path in [self.path.clone(), self.staged()] {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != ErrorKind::NotFound => {
                    return Err(Error::Write { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Always the same name, so that a process that is killed while it writes leaves nothing that
    /// adds up.
    fn staged(&self) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        self.path.with_file_name(name)
    }

    /// The state to go on from, if it is one of the run that `origin` describes.
    pub(crate) fn read(&self, origin: &Provenance) -> Result<Option<State>, Error> {
        if self.found == Found::Replace {
            return Ok(None);
        }
        let Some((then, state)) = self.open()? else {
            let path = self.path.clone();
            return if self.found == Found::Require { Err(Error::NoState { path }) } else { Ok(None) };
        };
        let differences = then.differences(origin);
        if differences.is_empty() {
            return Ok(Some(state));
        }
        Err(Error::OtherRun { path: self.path.clone(), differences })
    }

    /// What the file holds, if it is there, and where that came from.
    pub(crate) fn open(&self) -> Result<Option<(Provenance, State)>, Error> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(source) if source.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Read { path: self.path.clone(), source }),
        };
        let damaged = |what| Error::State { path: self.path.clone(), what };
        let end =
            bytes.iter().position(|&byte| byte == b'\n').ok_or_else(|| damaged("it has no first line"))?;
        let header: Header =
            serde_json::from_slice(&bytes[..end]).map_err(|_| damaged("its first line cannot be read"))?;
        if header.format != FORMAT {
            return Err(damaged("it is of another format or version"));
        }
        let state = &bytes[end + 1..];
        if header.state != digest(state) {
            return Err(damaged("its content is not what its first line promises"));
        }
        let state = State::from_bytes(state).map_err(|_| damaged("its content cannot be read"))?;
        Ok(Some((header.origin, state)))
    }

    fn write(&self, origin: &Provenance, state: &State) -> Result<(), Error> {
        let state = state.to_bytes();
        let header = Header { format: FORMAT.to_owned(), origin: origin.clone(), state: digest(&state) };
        let mut bytes = serde_json::to_vec(&header).expect("text and hashes serialize");
        bytes.push(b'\n');
        bytes.extend(state);
        let staged = self.staged();
        let write = || {
            if let Some(folder) = self.path.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut file = File::create(&staged)?;
            file.write_all(&bytes)?;
            // A rename that reaches the disk before the content would lose both states with the power.
            file.sync_data()?;
            fs::rename(&staged, &self.path)
        };
        write().map_err(|source| Error::Write { path: self.path.clone(), source })
    }
}

const FORMAT: &str = "gamma.learning/2";

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    origin: Provenance,
    state: Digest,
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::sha256(Sha256::digest(bytes).into())
}

/// Writes states while learning goes on, and holds back a request to stop until one is written.
pub(crate) struct Keeper<'a> {
    file: &'a StateFile,
    origin: Provenance,
    progress: &'a mut dyn Progress,
    written: Instant,
    latest: Option<State>,
    stopping: bool,
    failed: Option<Error>,
}

impl<'a> Keeper<'a> {
    pub(crate) fn new(file: &'a StateFile, origin: Provenance, progress: &'a mut dyn Progress) -> Self {
        let written = Instant::now();
        Self { file, origin, progress, written, latest: None, stopping: false, failed: None }
    }

    /// Writes what was not yet written; answers why keeping the state failed, if it did.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        if let Some(state) = self.latest.take() {
            self.file.write(&self.origin, &state)?;
        }
        self.failed.map_or(Ok(()), Err)
    }
}

impl gamma_preference::Progress for Keeper<'_> {
    fn step(&mut self, step: &Step) -> ControlFlow<()> {
        if self.progress.event(Event::Learning(*step)).is_break() && !self.stopping {
            self.stopping = true;
            // Whoever asked to stop is told why it takes a while; the answer cannot change anything.
            let _ = self.progress.event(Event::Stopping);
        }
        ControlFlow::Continue(())
    }

    fn rest(&mut self, state: &dyn Fn() -> State) -> ControlFlow<()> {
        let state = state();
        if !self.stopping && self.written.elapsed() < self.file.every {
            self.latest = Some(state);
            return ControlFlow::Continue(());
        }
        self.latest = None;
        self.failed = self.file.write(&self.origin, &state).err();
        self.written = Instant::now();
        if self.stopping || self.failed.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}
