//! The decoder as the preference model sees it.

use burn::tensor::{Tensor, TensorData};
use gamma_core::Format;
use gamma_model::{Block, Decoder, Products};
use gamma_preference::{Aside, Bank, Candidate, Competitor, Head, Network, Tap};

use crate::{
    Error,
    bank::{CandidateBank, prepared},
    filed::Room,
    observe::floats,
    spill::Shelf,
};

/// A decoder with a bank of candidates for every module.
pub(crate) struct BankedDecoder<'a> {
    decoder: &'a Decoder,
    head: DecoderHead<'a>,
    bank: &'a CandidateBank,
    formats: &'a [Format],
    competitors: Vec<Vec<Competitor>>,
    shelf: Shelf<'a>,
    products: Products,
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
                .filter_map(|format| {
                    let stored_bits = bank.stored_bits(&module.name, format)?;
                    Some(Candidate { format: format.clone(), stored_bits })
                })
                .collect(),
        };
        let competitors =
            (0..config.blocks).map(|b| config.modules(b).iter().map(competitor).collect()).collect();
        let shelf = Shelf::new(None, 0, decoder.device());
        let products = Products::default();
        Self { decoder, head: DecoderHead(decoder), bank, formats, competitors, shelf, products }
    }

    /// Hidden states that wait go where there is room for them.
    pub(crate) fn within(mut self, room: &'a Room) -> Self {
        self.shelf = Shelf::new(room.spill.as_deref(), room.hidden, self.decoder.device());
        self
    }

    /// Modules multiply in this type.
    pub(crate) fn multiplying_in(self, products: Products) -> Self {
        Self { products, ..self }
    }

    /// `Q_k - W` for every candidate of one module, `[candidates, out_features * in_features]`.
    fn differences(&self, module: &gamma_model::Module, original: &Tensor<2>) -> Result<Tensor<2>, Error> {
        let size = module.shape[0] * module.shape[1];
        let made = self.formats.iter().filter(|format| self.bank.stored_bits(&module.name, format).is_some());
        let made: Vec<&Format> = made.collect();
        let original = floats(original.clone());
        // One piece of memory, filled in place: it is the largest that there is.
        let mut values = vec![0.0; made.len() * size];
        for (format, values) in made.iter().zip(values.chunks_exact_mut(size)) {
            let weight = self.bank.get(&module.name, format)?.expect("it has a size");
            weight.dequantize_into(values);
            values.iter_mut().zip(&original).for_each(|(value, original)| *value -= original);
        }
        Ok(Tensor::from_data(TensorData::new(values, [made.len(), size]), self.decoder.device()))
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
        let block = prepared(self.decoder, &self.bank.scales(), number)?.with_products(self.products)?;
        let originals = block.weights().to_vec();
        let modules = block.modules().iter().zip(&originals);
        let differences = modules.map(|(module, original)| self.differences(module, original));
        let differences = differences.collect::<Result<_, _>>()?;
        Ok(Bank { block: DecoderBlock(block), originals, differences })
    }

    fn set_aside(&mut self, hidden: Tensor<3>) -> Result<Aside, Error> {
        self.shelf.put(hidden)
    }

    fn fetch(&mut self, aside: Aside) -> Result<Tensor<3>, Error> {
        self.shelf.take(aside)
    }

    fn head(&self) -> &DecoderHead<'a> {
        &self.head
    }
}
