//! Quantizers that break one law each: the laws must notice.

use std::sync::atomic::{AtomicU32, Ordering};

use gamma_core::{BitWidth, Format, ModuleName};
use gamma_quant::{
    CalibrationNeeds, CalibrationStats, CustomWeight, QuantizeError, QuantizedWeight, Quantizer, WeightView,
    laws::{self, Violation},
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    ZerosMove,
    RunsDiffer,
    LayoutMatters,
    OtherFormat,
    OtherWidth,
    UnreadableFormat,
    NoFormat,
    TwiceTheSame,
    NoSize,
    OtherSize,
    Transposes,
    NoStatistics,
    OtherModule,
    AlwaysRefuses,
}

#[derive(Debug)]
struct Faulty(Fault, AtomicU32);

impl Quantizer for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }
    fn describe(&self) -> String {
        format!("faulty {:?}", self.0)
    }
    fn formats(&self, width: BitWidth) -> Vec<Format> {
        let bits = if self.0 == Fault::OtherWidth { BitWidth::B8 } else { width };
        let name = if self.0 == Fault::UnreadableFormat { "two words" } else { "faulty" };
        let format = Format::Custom { bits, name: name.into() };
        match self.0 {
            Fault::NoFormat => Vec::new(),
            Fault::TwiceTheSame => vec![format.clone(), format],
            _ => vec![format],
        }
    }
    fn stored_bits(&self, _format: &Format, shape: [usize; 2]) -> Option<u64> {
        (self.0 == Fault::OtherSize).then_some(shape[0] as u64)
    }
    fn needs(&self) -> CalibrationNeeds {
        match self.0 {
            Fault::NoStatistics | Fault::OtherModule => CalibrationNeeds::SecondMoment,
            _ => CalibrationNeeds::Nothing,
        }
    }
    fn quantize(
        &self,
        weight: &WeightView<'_>,
        stats: &CalibrationStats,
        format: &Format,
    ) -> Result<QuantizedWeight, QuantizeError> {
        let other = ModuleName::new("other");
        let (mut values, mut format) = (weight.data().to_owned(), format.clone());
        let mut bits = 32 * values.len() as u64;
        match self.0 {
            Fault::ZerosMove => values.mapv_inplace(|w| w + 1e-9),
            Fault::RunsDiffer => values[[0, 0]] = self.1.fetch_add(1, Ordering::Relaxed) as f32,
            Fault::LayoutMatters => {
                values[[0, 0]] = weight.data().iter().chain(&values).next().copied().unwrap_or(0.0)
                    + f32::from(u8::from(weight.data().as_slice().is_some()));
            }
            Fault::OtherFormat => format = Format::Custom { bits: format.bits(), name: "another".into() },
            Fault::NoSize => bits = 0,
            Fault::Transposes => values = values.reversed_axes(),
            Fault::OtherModule => stats.check(&other, weight.shape()[1], self.needs())?,
            Fault::AlwaysRefuses => {
                let quantizer = self.name().to_owned();
                let (module, requested) = (weight.name().clone(), "anything".into());
                return Err(QuantizeError::Unsupported { module, quantizer, requested });
            }
            _ => {}
        }
        Ok(CustomWeight::new(weight.name(), format, values, bits)?.into())
    }
}

#[test]
fn every_fault_is_noticed_and_nothing_else() {
    type Expected = fn(&Violation) -> bool;
    let cases: [(Fault, Expected); 14] = [
        (Fault::NoFormat, |v| matches!(v, Violation::NoFormat { .. })),
        (Fault::TwiceTheSame, |v| matches!(v, Violation::Width { .. })),
        (Fault::OtherSize, |v| matches!(v, Violation::StoredBits { .. })),
        (Fault::ZerosMove, |v| matches!(v, Violation::ZeroRow { row: 1, .. })),
        (Fault::RunsDiffer, |v| matches!(v, Violation::NotDeterministic { .. })),
        (Fault::LayoutMatters, |v| matches!(v, Violation::NotDeterministic { .. })),
        (Fault::OtherFormat, |v| matches!(v, Violation::Format { .. })),
        (Fault::OtherWidth, |v| matches!(v, Violation::Width { .. })),
        (Fault::UnreadableFormat, |v| matches!(v, Violation::FormatText { .. })),
        (Fault::NoSize, |v| matches!(v, Violation::StoredBits { .. })),
        (Fault::Transposes, |v| matches!(v, Violation::Shape { .. })),
        (Fault::NoStatistics, |v| matches!(v, Violation::StatisticsIgnored { .. })),
        (Fault::OtherModule, |v| matches!(v, Violation::ErrorWithoutModule { .. })),
        (Fault::AlwaysRefuses, |v| matches!(v, Violation::Refused { .. })),
    ];
    let check = |fault| laws::check(&Faulty(fault, AtomicU32::new(0)), &[BitWidth::B2]);
    assert!(check(Fault::None).is_ok());
    for (fault, expected) in cases {
        let broken = check(fault).unwrap_err();
        assert!(broken.iter().all(expected), "{fault:?}: {}", laws::report(&broken));
    }
}
