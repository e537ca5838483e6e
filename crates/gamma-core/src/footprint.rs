//! Where the bytes of a deployed model go.

use std::fmt;

use crate::{Budget, CacheShape, FixedRole, GgufRemainder, Plan, Remainder};

/// A purpose that bytes serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Part {
    /// Integer codes of the planned modules.
    Codes,
    /// Scales of the planned modules.
    Scales,
    /// Zero points of the planned modules.
    Zeros,
    /// Planned modules in a code of a third party.
    Custom,
    /// A tensor that no plan changes.
    Fixed(FixedRole),
    /// Header and names of the file.
    Container,
    /// The key-value cache.
    Cache,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Codes => "codes",
            Self::Scales => "scales",
            Self::Zeros => "zero points",
            Self::Custom => "custom codes",
            Self::Fixed(FixedRole::Embedding) => "embeddings",
            Self::Fixed(FixedRole::Head) => "output head",
            Self::Fixed(FixedRole::Norm) => "norms",
            Self::Fixed(FixedRole::Bias) => "biases",
            Self::Fixed(FixedRole::Router) => "routers",
            Self::Fixed(FixedRole::Module) => "modules left as they are",
            Self::Fixed(FixedRole::Other) => "other tensors",
            Self::Container => "container",
            Self::Cache => "key-value cache",
        })
    }
}

/// Bytes by purpose: of a plan, of the file that holds it, or of the device that runs it.
///
/// ```
/// use gamma_core::{CacheShape, FixedRole, FixedTensor, Footprint, Part, Remainder};
/// let embedding = FixedTensor { name: "wte".into(), role: FixedRole::Embedding, bytes: 1000 };
/// let remainder = Remainder { tensors: vec![embedding], ..Remainder::default() };
/// let cache = CacheShape { blocks: 2, kv_heads: 1, head_dim: 8 };
/// let footprint = Footprint::default().with_tensors(&remainder).with_cache(cache, 100, 16);
/// assert_eq!(footprint.bytes(Part::Cache), 2 * 2 * 8 * 100 * 2);
/// assert_eq!(footprint.total(), 1000 + 6400);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// In order of parts, no part twice, none empty.
    lines: Vec<(Part, u64)>,
}

impl Footprint {
    /// The planned modules alone: exactly [`Plan::stored_bits`].
    #[must_use]
    pub fn of_modules(plan: &Plan) -> Self {
        let mut footprint = Self::default();
        for choice in plan.choices() {
            match choice.format.streams(choice.shape) {
                Some(streams) => {
                    footprint.add(Part::Codes, streams.codes / 8);
                    footprint.add(Part::Scales, streams.scales / 8);
                    footprint.add(Part::Zeros, streams.zeros / 8);
                }
                None => footprint.add(Part::Custom, choice.stored_bits.div_ceil(8)),
            }
        }
        footprint
    }

    /// All that `budget` limits: the planned modules and, where `remainder` is known, all other
    /// tensors with the cache of a device budget, or with what the GGUF file adds for itself, else with
    /// the most that the packed file adds.
    #[must_use]
    pub fn within(budget: Budget, plan: &Plan, remainder: Option<&Remainder>) -> Self {
        let modules = Self::of_modules(plan);
        let Some(remainder) = remainder else { return modules };
        if let (Budget::Gguf(_), Some(gguf)) = (budget, &remainder.gguf) {
            let padding = gguf.file_bytes(plan).saturating_sub(gguf.bytes().saturating_add(modules.total()));
            return modules.with_gguf(gguf).with_container(padding);
        }
        let tensors = modules.with_tensors(remainder);
        match (budget, remainder.cache) {
            (Budget::Device { tokens, cache_bits, .. }, Some(cache)) => {
                tensors.with_cache(cache, tokens, cache_bits)
            }
            (Budget::Device { .. }, None) => tensors,
            _ => tensors.with_container(remainder.container),
        }
    }

    /// Adds the tensors that no plan changes.
    #[must_use]
    pub fn with_tensors(mut self, remainder: &Remainder) -> Self {
        for tensor in &remainder.tensors {
            self.add(Part::Fixed(tensor.role), tensor.bytes);
        }
        self
    }

    /// Adds what a GGUF file holds besides the modules of a plan.
    #[must_use]
    pub fn with_gguf(mut self, gguf: &GgufRemainder) -> Self {
        for matrix in &gguf.matrices {
            self.add(Part::Fixed(matrix.role), matrix.bytes);
        }
        self.add(Part::Fixed(FixedRole::Other), gguf.vectors);
        self.with_container(gguf.header)
    }

    /// Adds what a file needs for itself.
    #[must_use]
    pub fn with_container(mut self, bytes: u64) -> Self {
        self.add(Part::Container, bytes);
        self
    }

    /// Adds the key-value cache for `tokens` tokens (context length times batch), each number in
    /// `bits` bits.
    #[must_use]
    pub fn with_cache(mut self, cache: CacheShape, tokens: u64, bits: u32) -> Self {
        self.add(Part::Cache, cache.bytes(tokens, bits));
        self
    }

    /// The parts that take any bytes, in a fixed order.
    #[must_use]
    pub fn lines(&self) -> &[(Part, u64)] {
        &self.lines
    }

    /// Bytes of one part.
    #[must_use]
    pub fn bytes(&self, part: Part) -> u64 {
        self.lines.iter().find(|(own, _)| *own == part).map_or(0, |&(_, bytes)| bytes)
    }

    /// Bytes of all parts.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.lines.iter().fold(0, |sum, &(_, bytes)| sum.saturating_add(bytes))
    }

    fn add(&mut self, part: Part, bytes: u64) {
        match self.lines.binary_search_by_key(&part, |&(own, _)| own) {
            _ if bytes == 0 => {}
            Ok(at) => self.lines[at].1 = self.lines[at].1.saturating_add(bytes),
            Err(at) => self.lines.insert(at, (part, bytes)),
        }
    }
}

/// One line per part and one for the total, aligned; all in one line with `{:#}`.
impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        if f.alternate() {
            let parts: Vec<_> = self.lines.iter().map(|(part, bytes)| format!("{part} {bytes}")).collect();
            return write!(f, "{} = {total} bytes", parts.join(" + "));
        }
        for &(part, bytes) in &self.lines {
            writeln!(f, "{part:<24} {bytes:>15} bytes {:>6.2} %", bytes as f64 * 100.0 / total as f64)?;
        }
        write!(f, "{:<24} {total:>15} bytes", "total")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BitWidth, Format, GroupSize, ModuleName, ModuleScores, ScoreTable, ScoredOption};

    #[test]
    fn the_parts_of_a_plan_add_up_to_its_stored_bits() {
        let shape = [10, 72];
        let asymmetric = Format::asymmetric(BitWidth::B3, GroupSize::new(64).unwrap());
        let custom = Format::Custom { bits: BitWidth::B2, name: "ternary".into() };
        let module = |name: &str, format: Format, bits| ModuleScores {
            name: ModuleName::new(name),
            shape,
            options: vec![ScoredOption::new(format, bits, 0.0)],
        };
        let stored = asymmetric.stored_bits(shape).unwrap();
        let table =
            ScoreTable::new(vec![module("a", asymmetric, stored), module("b", custom, 4000)]).unwrap();
        let plan = Plan::from_picks(&table, &[0, 0], None).unwrap();
        let footprint = Footprint::of_modules(&plan);
        assert_eq!(footprint.total() * 8, plan.stored_bits());
        // Two groups per row; 60 bits of zero points round up to 8 bytes.
        let parts = [Part::Codes, Part::Scales, Part::Zeros, Part::Custom];
        assert_eq!(parts.map(|part| footprint.bytes(part)), [270, 40, 8, 500]);
        let text = footprint.with_container(96).to_string();
        assert!(text.ends_with("total                                914 bytes"), "{text}");
    }
}
