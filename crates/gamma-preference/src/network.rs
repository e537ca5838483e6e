//! What the learner needs of a model.

use burn::tensor::Tensor;
use gamma_core::{Format, ModuleName};

/// What a tap is given: the position of a weight, what it is multiplied with, shape
/// `[batch, tokens, in_features]`, and the product with all that the module adds to it, shape
/// `[batch, tokens, out_features]`. It answers with the output to go on with, of the same shape.
pub type Tap<'a> = &'a mut dyn FnMut(usize, &Tensor<3>, Tensor<3>) -> Tensor<3>;

/// A piece of a network whose linear weights can be replaced call by call.
pub trait Block {
    /// The output for `hidden`, shape `[batch, tokens, width]`, with `weights` in place of the
    /// linear weights, each `[out_features, in_features]`, and with every module's output as `tap`
    /// returns it. Must be differentiable in `weights` and in what `tap` returns.
    ///
    /// The tap is called at most once for each weight. A module that only some tokens go to, such as
    /// an expert, shows these alone, in whatever batches; one that none goes to is not shown at all.
    fn forward_tapped(&self, weights: &[Tensor<2>], hidden: Tensor<3>, tap: Tap<'_>) -> Tensor<3>;

    /// [`forward_tapped`](Self::forward_tapped) with nobody at the tap.
    fn forward(&self, weights: &[Tensor<2>], hidden: Tensor<3>) -> Tensor<3> {
        self.forward_tapped(weights, hidden, &mut |_, _, y| y)
    }
}

/// What follows the last block of a network.
pub trait Head {
    /// The logits `[batch, tokens, vocabulary]` for the residual stream `hidden`, shape
    /// `[batch, tokens, width]`. Must be differentiable in `hidden`, and treat tokens one by one.
    fn logits(&self, hidden: Tensor<3>) -> Tensor<3>;
}

/// The residual stream before the first block, in batches of shape `[batch, tokens, width]`.
///
/// A slice or a vector of tensors is one. A model that looks embeddings up when they are asked for
/// need not hold those of all calibration data.
pub trait Inputs {
    /// How many batches there are.
    fn count(&self) -> usize;

    /// Batch `number`, below [`count`](Self::count): the same each time.
    fn batch(&self, number: usize) -> Tensor<3>;
}

impl<T: AsRef<[Tensor<3>]>> Inputs for T {
    fn count(&self) -> usize {
        self.as_ref().len()
    }

    fn batch(&self, number: usize) -> Tensor<3> {
        self.as_ref()[number].clone()
    }
}

/// One way to store a module.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The storage format.
    pub format: Format,
    /// Exact storage, in bits.
    pub stored_bits: u64,
}

/// A module that competes for bits.
#[derive(Clone, Debug, PartialEq)]
pub struct Competitor {
    /// Its exact name.
    pub name: ModuleName,
    /// `[out_features, in_features]`.
    pub shape: [usize; 2],
    /// At least one candidate.
    pub candidates: Vec<Candidate>,
}

impl Competitor {
    pub(crate) fn weights(&self) -> f64 {
        (self.shape[0] * self.shape[1]) as f64
    }
}

/// A block, its weights, and what its candidates would change about them.
#[derive(Debug)]
pub struct Bank<B> {
    /// The block.
    pub block: B,
    /// The original weights, each `[out_features, in_features]`.
    pub originals: Vec<Tensor<2>>,
    /// For each module the differences `Q_k - W`, shape `[candidates, out_features * in_features]`.
    pub differences: Vec<Tensor<2>>,
}

/// A network that hands out its blocks one at a time.
pub trait Network {
    /// The blocks.
    type Block: Block;
    /// What follows the last of them.
    type Head: Head;
    /// Why a block cannot be had.
    type Error: std::error::Error + 'static;

    /// The modules of each block, in the order of their weights.
    fn competitors(&self) -> &[Vec<Competitor>];

    /// Loads block `number` with its candidates. Called in order, and where the student runs
    /// through also in reverse order; the previous bank has been dropped by then. The numbers and
    /// shapes of its weights are those of [`competitors`](Self::competitors); learning panics if
    /// they are not.
    ///
    /// # Errors
    /// Whatever keeps the block from being loaded.
    fn load(&mut self, number: usize) -> Result<Bank<Self::Block>, Self::Error>;

    /// What follows the last block. Only the readings of the objective with an end loss ask.
    fn head(&self) -> &Self::Head;

    /// Puts hidden states aside that are needed again on the way back through the blocks. The default
    /// leaves them where they are; a network that is short of memory may write them to a disk.
    ///
    /// # Errors
    /// Whatever keeps them from being stored.
    fn set_aside(&mut self, hidden: Tensor<3>) -> Result<Aside, Self::Error> {
        Ok(Aside::Here(Box::new(hidden)))
    }

    /// Gives back what was set aside, bit for bit, and forgets it.
    ///
    /// # Errors
    /// Whatever keeps them from being read.
    ///
    /// # Panics
    /// The default, if it is asked for what another implementation has stored elsewhere.
    fn fetch(&mut self, aside: Aside) -> Result<Tensor<3>, Self::Error> {
        match aside {
            Aside::Here(hidden) => Ok(*hidden),
            Aside::Elsewhere(number) => panic!("nothing was stored under {number}"),
        }
    }
}

/// Hidden states that were set aside.
#[derive(Debug)]
pub enum Aside {
    /// In memory.
    Here(Box<Tensor<3>>),
    /// Wherever the network that stored them finds them under this number.
    Elsewhere(u64),
}
