//! Hidden states of calibration data on their way through the full-precision blocks.

use std::mem;

use burn::tensor::{Device, Tensor};
use gamma_model::Decoder;
use gamma_preference::{Aside, Inputs};

use crate::{Error, filed::Room, spill::Shelf};

/// Token sequences of one length, in batches, whose embeddings are looked up when they are asked for.
pub(crate) struct Embedded<'a> {
    pub(crate) decoder: &'a Decoder,
    pub(crate) sequences: &'a [Vec<u32>],
    /// Sequences in a batch.
    pub(crate) batch: usize,
}

impl Inputs for Embedded<'_> {
    fn count(&self) -> usize {
        self.sequences.len().div_ceil(self.batch)
    }

    fn batch(&self, number: usize) -> Tensor<3> {
        let from = number * self.batch;
        self.decoder.embed(&self.sequences[from..self.sequences.len().min(from + self.batch)])
    }
}

/// The residual stream before a block, batch by batch: in memory as far as there is room, the rest in a
/// file.
pub(crate) struct Stream<'a> {
    shelf: Shelf<'a>,
    states: Vec<Aside>,
}

impl<'a> Stream<'a> {
    /// The stream before the first block.
    pub(crate) fn new(inputs: &dyn Inputs, room: &'a Room, device: &Device) -> Result<Self, Error> {
        let mut shelf = Shelf::new(room.spill.as_deref(), room.stream, device);
        let states = (0..inputs.count()).map(|batch| shelf.put(inputs.batch(batch)));
        let states = states.collect::<Result<_, _>>()?;
        Ok(Self { shelf, states })
    }

    /// Nothing, for who needs no data.
    pub(crate) fn nothing(room: &'a Room, device: &Device) -> Self {
        Self { shelf: Shelf::new(room.spill.as_deref(), 0, device), states: Vec::new() }
    }

    /// Batches.
    pub(crate) fn count(&self) -> usize {
        self.states.len()
    }

    /// Replaces every batch by what `block` makes of it. With `keep`, gives those before it back, for
    /// [`visit`](Self::visit) to end.
    pub(crate) fn pass(
        &mut self,
        keep: bool,
        mut block: impl FnMut(Tensor<3>) -> Tensor<3>,
    ) -> Result<Vec<Aside>, Error> {
        let mut before = Vec::new();
        for state in mem::take(&mut self.states) {
            let state = self.shelf.take(state)?;
            if keep {
                before.push(self.shelf.put(state.clone())?);
            }
            self.states.push(self.shelf.put(block(state))?);
        }
        Ok(before)
    }

    /// Shows batches that were kept to `visitor`, if there is one, and forgets them.
    pub(crate) fn visit(
        &mut self,
        before: Vec<Aside>,
        mut visitor: Option<impl FnMut(Tensor<3>)>,
    ) -> Result<(), Error> {
        for state in before {
            match &mut visitor {
                Some(visitor) => visitor(self.shelf.take(state)?),
                None => self.shelf.forget(state),
            }
        }
        Ok(())
    }
}
