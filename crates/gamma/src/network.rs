//! The decoder as the preference model sees it.

use burn::tensor::Tensor;
use gamma_core::Format;
use gamma_model::{Block, Decoder};
use gamma_preference::{Bank, Candidate, Competitor, Head, Network, Tap};

use crate::{
    Error,
    bank::{CandidateBank, decoded, prepared},
};

/// A decoder with a bank of candidates for every module.
pub(crate) struct BankedDecoder<'a> {
    decoder: &'a Decoder,
    head: DecoderHead<'a>,
    bank: &'a CandidateBank,
    formats: &'a [Format],
    competitors: Vec<Vec<Competitor>>,
}

/// A decoder block as a differentiable function of its linear weights.
pub(crate) struct DecoderBlock(Block);

impl gamma_preference::Block for DecoderBlock {
    fn forward(&self, weights: &[Tensor<2>], hidden: Tensor<3>) -> Tensor<3> {
        self.0.forward_with(weights, hidden)
    }

    fn forward_tapped(&self, weights: &[Tensor<2>], hidden: Tensor<3>, tap: Tap<'_>) -> Tensor<3> {
        self.0.forward_tapped(weights, hidden, tap)
    }
}

/// Final norm and head of a decoder.
pub(crate) struct DecoderHead<'a>(&'a Decoder);

impl Head for DecoderHead<'_> {
    fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        self.0.logits(hidden)
    }
}

impl<'a> BankedDecoder<'a> {
    /// Of each module, the candidates of `formats` that the bank has.
    pub(crate) fn new(decoder: &'a Decoder, bank: &'a CandidateBank, formats: &'a [Format]) -> Self {
        let config = decoder.config();
        let competitor = |module: &gamma_model::Module| Competitor {
            name: module.name.clone(),
            shape: module.shape,
            candidates: formats
                .iter()
                // The bank was filled with the formats that fit the module.
                .filter_map(|format| bank.get(&module.name, format))
                .map(|weight| Candidate { format: weight.format(), stored_bits: weight.stored_bits() })
                .collect(),
        };
        let competitors =
            (0..config.blocks).map(|b| config.modules(b).iter().map(competitor).collect()).collect();
        Self { decoder, head: DecoderHead(decoder), bank, formats, competitors }
    }
}

impl<'a> Network for BankedDecoder<'a> {
    type Block = DecoderBlock;
    type Head = DecoderHead<'a>;
    type Error = Error;

    fn competitors(&self) -> &[Vec<Competitor>] {
        &self.competitors
    }

    fn load(&mut self, number: usize) -> Result<Bank<DecoderBlock>, Error> {
        let block = prepared(self.decoder, &self.bank.scales(), number)?;
        let originals = block.weights().to_vec();
        let differences = block
            .modules()
            .iter()
            .zip(&originals)
            .map(|(module, original)| {
                let size = module.shape[0] * module.shape[1];
                let weights = self.formats.iter().filter_map(|format| self.bank.get(&module.name, format));
                let rows = weights
                    .map(|weight| (decoded(weight, self.decoder) - original.clone()).reshape([1, size]));
                Tensor::cat(rows.collect(), 0) // [candidates, out_features * in_features]
            })
            .collect();
        Ok(Bank { block: DecoderBlock(block), originals, differences })
    }
    fn head(&self) -> &DecoderHead<'a> {
        &self.head
    }
}
