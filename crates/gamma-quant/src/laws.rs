//! What every [`Quantizer`] owes to its callers, as a test that implementations anywhere can run.
//!
//! ```
//! # #[cfg(feature = "rtn")] {
//! use gamma_core::{BitWidth, GroupSize};
//! use gamma_quant::{Rtn, laws};
//!
//! let rtn = Rtn::symmetric(GroupSize::G128);
//! laws::check(&rtn, &[BitWidth::B3, BitWidth::B4]).map_err(|broken| laws::report(&broken)).unwrap();
//! # }
//! ```
//!
//! "More bits, less error" is *not* a law: a coarse grid can hit a point that a finer one misses.

use gamma_core::{BitWidth, Format, ModuleName};
use ndarray::{Array2, ShapeBuilder};

use crate::{CalibrationNeeds, CalibrationStats, QuantizeError, QuantizedWeight, Quantizer, WeightView};

/// `[out_features, in_features]` of the matrices that the laws are tried on.
const SHAPES: [[usize; 2]; 4] = [[1, 1], [5, 172], [3, 128], [17, 96]];
/// One more, for formats whose blocks are too wide for the others.
const WIDE: [usize; 2] = [5, 512];

/// What was done differently when two runs disagreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Variation {
    /// Nothing.
    SecondRun,
    /// Run on this many threads.
    Threads(usize),
    /// The matrix was stored column by column.
    ColumnMajor,
}

/// A law that a quantizer breaks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A name or description that is empty.
    #[error("the name or the description is empty")]
    Nameless,
    /// A width without a format, although the laws are to be tried on it.
    #[error("there is no format for {width} bits")]
    NoFormat {
        /// The requested bit-width.
        width: BitWidth,
    },
    /// A format of another bit-width than was asked for, or one that is offered twice.
    #[error("`{format}` is offered for {width} bits, or offered twice")]
    Width {
        /// The requested bit-width.
        width: BitWidth,
        /// What `formats` answered.
        format: Format,
    },
    /// A format for none of the shapes.
    #[error("`{format}` fits no matrix, not even one with rows of 512")]
    FitsNothing {
        /// What `formats` answered.
        format: Format,
    },
    /// A size or a result for a matrix that the format does not fit.
    #[error("`{format}` does not fit shape {shape:?}, and yet there is a size or a result")]
    Unfitting {
        /// What `formats` answered.
        format: Format,
        /// The matrix.
        shape: [usize; 2],
    },
    /// A format that plan files could not hold.
    #[error("the format `{format}` does not read back from its text")]
    FormatText {
        /// What `formats` answered.
        format: Format,
    },
    /// An error on a matrix of ordinary weights.
    #[error("{width} bits, shape {shape:?}: the matrix was refused")]
    Refused {
        /// The bit-width.
        width: BitWidth,
        /// The matrix.
        shape: [usize; 2],
        /// What the quantizer said.
        #[source]
        source: QuantizeError,
    },
    /// A result in another format than was asked for.
    #[error("{width} bits, shape {shape:?}: `{expected}` was asked for, the result is stored as `{found}`")]
    Format {
        /// The bit-width.
        width: BitWidth,
        /// The matrix.
        shape: [usize; 2],
        /// What `formats` answered.
        expected: Format,
        /// The format of the result.
        found: Format,
    },
    /// A result of another shape.
    #[error("{width} bits: a matrix of shape {expected:?} became one of shape {found:?}")]
    Shape {
        /// The bit-width.
        width: BitWidth,
        /// Shape of the matrix.
        expected: [usize; 2],
        /// Shape of the result.
        found: [usize; 2],
    },
    /// A size that was not promised, or zero.
    #[error("{width} bits, shape {shape:?}: {found} bits are stored, {expected:?} were promised")]
    StoredBits {
        /// The bit-width.
        width: BitWidth,
        /// The matrix.
        shape: [usize; 2],
        /// What `stored_bits` answered.
        expected: Option<u64>,
        /// What the result says.
        found: u64,
    },
    /// A row of zeros that does not decode to zeros.
    #[error("{width} bits, shape {shape:?}: a row of zeros decodes to {value} in row {row}, column {column}")]
    ZeroRow {
        /// The bit-width.
        width: BitWidth,
        /// The matrix.
        shape: [usize; 2],
        /// Row, counted from 0.
        row: usize,
        /// Column, counted from 0.
        column: usize,
        /// The decoded value.
        value: f32,
    },
    /// A decoded value that is NaN or infinite.
    #[error("{width} bits, shape {shape:?}: a decoded value is {value}")]
    NotFinite {
        /// The bit-width.
        width: BitWidth,
        /// The matrix.
        shape: [usize; 2],
        /// The decoded value.
        value: f32,
    },
    /// Two runs that give different bits.
    #[error("{width} bits, shape {shape:?}: the result changes with {variation:?}")]
    NotDeterministic {
        /// The bit-width.
        width: BitWidth,
        /// The matrix.
        shape: [usize; 2],
        /// What was done differently.
        variation: Variation,
    },
    /// An error that is about no or another module.
    #[error("an error does not name the module `{module}`")]
    ErrorWithoutModule {
        /// The module that was quantized.
        module: ModuleName,
        /// What the quantizer said.
        #[source]
        source: QuantizeError,
    },
    /// A result without the statistics that `needs` asks for.
    #[error("{width} bits: the quantizer asks for {needs:?} and works without")]
    StatisticsIgnored {
        /// The bit-width.
        width: BitWidth,
        /// What `needs` answered.
        needs: CalibrationNeeds,
    },
}

/// Violations as one text, a line each, with the errors behind them.
#[must_use]
pub fn report(violations: &[Violation]) -> String {
    let line = |violation: &Violation| match std::error::Error::source(violation) {
        None => violation.to_string(),
        Some(source) => format!("{violation}: {source}"),
    };
    violations.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Tries all laws at every bit-width of `widths`.
///
/// The matrices and statistics are fixed, of up to 1632 weights, or 2560 where a format needs rows of 512. They include single weights, rows
/// of zeros, outliers, weights too small for 16 bits, and row lengths that no usual group size
/// divides. Weights near the largest `f32` may be refused, with an error that names the module.
///
/// # Errors
/// Every law that was seen broken.
///
/// # Panics
/// If no thread can be started.
pub fn check(quantizer: &dyn Quantizer, widths: &[BitWidth]) -> Result<(), Vec<Violation>> {
    let mut broken = Vec::new();
    if quantizer.name().is_empty() || quantizer.describe().is_empty() {
        broken.push(Violation::Nameless);
    }
    let formats: Vec<Format> =
        widths.iter().flat_map(|&width| offered(quantizer, width, &mut broken)).collect();
    for format in formats {
        let fits = |shape: &[usize; 2]| quantizer.fits(&format, *shape);
        let wide = (!SHAPES.iter().any(fits)).then_some(WIDE);
        if wide.is_some_and(|wide| !fits(&wide)) {
            broken.push(Violation::FitsNothing { format: format.clone() });
        }
        for (shape, seed) in SHAPES.into_iter().chain(wide).zip(1..) {
            let trial = Trial::new(quantizer, &format, shape, seed);
            if fits(&shape) {
                broken.extend(trial.ordinary().err());
                broken.extend(trial.huge().err());
                broken.extend(trial.without_statistics().err());
            } else {
                broken.extend(trial.unfitting().err());
            }
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(broken) }
}

/// The formats of one width.
fn offered(quantizer: &dyn Quantizer, width: BitWidth, broken: &mut Vec<Violation>) -> Vec<Format> {
    let formats = quantizer.formats(width);
    if formats.is_empty() {
        broken.push(Violation::NoFormat { width });
    }
    for (place, format) in formats.iter().enumerate() {
        if format.to_string().parse().as_ref() != Ok(format) {
            broken.push(Violation::FormatText { format: format.clone() });
        }
        if format.bits() != width || formats[..place].contains(format) {
            broken.push(Violation::Width { width, format: format.clone() });
        }
    }
    formats
}

/// One quantizer, one format, one shape.
struct Trial<'a> {
    quantizer: &'a dyn Quantizer,
    format: &'a Format,
    shape: [usize; 2],
    module: ModuleName,
    weight: Array2<f32>,
    stats: CalibrationStats,
}

impl<'a> Trial<'a> {
    fn new(quantizer: &'a dyn Quantizer, format: &'a Format, shape: [usize; 2], seed: u64) -> Self {
        let mut noise = Noise(seed);
        let mut weight = Array2::from_shape_simple_fn(shape, || 0.05 * noise.next());
        for (i, mut row) in weight.rows_mut().into_iter().enumerate() {
            match i % 5 {
                1 => row.fill(0.0),
                2 => row[0] = 7.5,
                3 => row.mapv_inplace(|w| w * 1e-12),
                4 => row.mapv_inplace(f32::abs),
                _ => {}
            }
        }
        let module = ModuleName::new("model.layers.7.mlp.law_proj");
        let stats = statistics(quantizer.needs(), shape[1], &mut noise);
        Self { quantizer, format, shape, module, weight, stats }
    }

    fn run(&self, weight: &Array2<f32>) -> Result<QuantizedWeight, QuantizeError> {
        let view = WeightView::new(&self.module, weight.view())?;
        self.quantizer.quantize(&view, &self.stats, self.format)
    }

    fn ordinary(&self) -> Result<(), Violation> {
        let (width, shape) = (self.format.bits(), self.shape);
        let refused = |source| Violation::Refused { width, shape, source };
        let first = self.run(&self.weight).map_err(refused)?;
        self.promises(&first)?;

        let mut column_major = Array2::zeros(shape.f());
        column_major.assign(&self.weight);
        let again = [
            (Variation::SecondRun, self.run(&self.weight)),
            (Variation::ColumnMajor, self.run(&column_major)),
            (Variation::Threads(1), self.run_on(1)),
            (Variation::Threads(3), self.run_on(3)),
        ];
        for (variation, second) in again {
            if !same_bits(&first, &second.map_err(refused)?) {
                return Err(Violation::NotDeterministic { width, shape, variation });
            }
        }
        Ok(())
    }

    fn run_on(&self, threads: usize) -> Result<QuantizedWeight, QuantizeError> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("threads can be started").install(|| self.run(&self.weight))
    }

    /// What one result must be.
    fn promises(&self, result: &QuantizedWeight) -> Result<(), Violation> {
        let (width, shape) = (self.format.bits(), self.shape);
        let (expected, found) = (self.format.clone(), result.format());
        if expected != found {
            return Err(Violation::Format { width, shape, expected, found });
        }
        let (expected, found) = (self.quantizer.stored_bits(self.format, shape), result.stored_bits());
        if found == 0 || expected.is_some_and(|expected| expected != found) {
            return Err(Violation::StoredBits { width, shape, expected, found });
        }
        let decoded = result.dequantize();
        for found in [result.shape(), [decoded.nrows(), decoded.ncols()]] {
            if found != shape {
                return Err(Violation::Shape { width, expected: shape, found });
            }
        }
        if let Some(&value) = decoded.iter().find(|value| !value.is_finite()) {
            return Err(Violation::NotFinite { width, shape, value });
        }
        for (row, weights) in self.weight.rows().into_iter().enumerate() {
            let nonzero = decoded.row(row).iter().position(|&value| value != 0.0);
            if let Some(column) = nonzero.filter(|_| weights.iter().all(|&w| w == 0.0)) {
                let value = decoded[[row, column]];
                return Err(Violation::ZeroRow { width, shape, row, column, value });
            }
        }
        Ok(())
    }

    fn huge(&self) -> Result<(), Violation> {
        let (width, shape) = (self.format.bits(), self.shape);
        match self.run(&self.weight.mapv(|w| (w * 1e38).clamp(f32::MIN, f32::MAX))) {
            Ok(result) => match result.dequantize().iter().find(|value| !value.is_finite()) {
                None => Ok(()),
                Some(&value) => Err(Violation::NotFinite { width, shape, value }),
            },
            Err(error) => self.names_module(error),
        }
    }

    fn without_statistics(&self) -> Result<(), Violation> {
        let needs = self.quantizer.needs();
        if needs == CalibrationNeeds::Nothing {
            return Ok(());
        }
        let view = WeightView::new(&self.module, self.weight.view());
        let result =
            view.and_then(|view| self.quantizer.quantize(&view, &CalibrationStats::default(), self.format));
        match result {
            Ok(_) => Err(Violation::StatisticsIgnored { width: self.format.bits(), needs }),
            Err(error) => self.names_module(error),
        }
    }

    fn unfitting(&self) -> Result<(), Violation> {
        match self.run(&self.weight) {
            Err(error) if self.quantizer.stored_bits(self.format, self.shape).is_none() => {
                self.names_module(error)
            }
            _ => Err(Violation::Unfitting { format: self.format.clone(), shape: self.shape }),
        }
    }

    fn names_module(&self, source: QuantizeError) -> Result<(), Violation> {
        if source.module() == &self.module {
            return Ok(());
        }
        Err(Violation::ErrorWithoutModule { module: self.module.clone(), source })
    }
}

/// The same storage and the same decoded bits, through both ways of decoding.
fn same_bits(a: &QuantizedWeight, b: &QuantizedWeight) -> bool {
    let mut b_values = vec![f32::NAN; b.shape()[0] * b.shape()[1]];
    b.dequantize_into(&mut b_values);
    let a_values = a.dequantize();
    let same = |(x, y): (&f32, &f32)| x.to_bits() == y.to_bits();
    a == b && a_values.len() == b_values.len() && a_values.iter().zip(&b_values).all(same)
}

/// Statistics of correlated inputs, more of them than channels so that the Hessian has full rank.
fn statistics(needs: CalibrationNeeds, in_features: usize, noise: &mut Noise) -> CalibrationStats {
    let tokens = 2 * in_features + 8;
    let mut x = Array2::from_shape_simple_fn((tokens, in_features), || noise.next());
    for mut token in x.rows_mut() {
        let shared = token[0];
        token.mapv_inplace(|value| value + 0.5 * shared);
    }
    let hessian = x.t().dot(&x) / tokens as f32;
    match needs {
        CalibrationNeeds::Nothing => CalibrationStats { tokens, ..CalibrationStats::default() },
        CalibrationNeeds::SecondMoment => {
            CalibrationStats::from_second_moment(tokens, hessian.diag().to_owned())
        }
        CalibrationNeeds::Hessian => CalibrationStats::from_hessian(tokens, hessian),
        CalibrationNeeds::Samples => CalibrationStats::from_hessian(tokens, hessian).with_samples(x),
    }
}

/// Numbers with mean 0 and variance 1 (splitmix64, twelve uniform numbers per value).
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    pub(crate) fn next(&mut self) -> f32 {
        let uniform = |_| {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z ^ (z >> 31)) >> 40) as f32 / (1_u64 << 24) as f32
        };
        (0..12).map(uniform).sum::<f32>() - 6.0
    }
}
