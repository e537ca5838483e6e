//! Quantizers as they are typed.

use anyhow::bail;
use clap::{Args, ValueEnum};
use gamma::{
    Awq, BitWidth, Builder, Clip, Format, Ggml, GgmlType, Gptq, GroupSize, Hqq, Plan, Quantizer, Rtn,
    Symmetry, Variants,
};

/// How weights are quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// Round to nearest
    Rtn,
    /// Round to nearest on the range of every group that loses least; no data
    RtnClip,
    /// Half-quadratic quantization; no data, asymmetric only
    Hqq,
    /// Activation-aware scales folded into the model, then the range that loses least
    Awq,
    /// Error compensation by the Hessian of the inputs
    Gptq,
    /// The same on the range of every group that loses least
    GptqClip,
    /// Block formats of ggml, for GGUF files: `Q2_K` to `Q8_0`, and `Q4_0` and `Q5_0`, which compete
    /// wherever their blocks divide a row; errors count by the size of what they meet
    Ggml,
}

impl Method {
    /// The method that describes itself in these words.
    pub fn of_description(words: &str) -> Option<Self> {
        let clipped = words.contains(" clip ");
        match words.split_whitespace().next()? {
            "rtn" if clipped => Some(Self::RtnClip),
            "rtn" => Some(Self::Rtn),
            "hqq" => Some(Self::Hqq),
            "awq" => Some(Self::Awq),
            "gptq" if clipped => Some(Self::GptqClip),
            "gptq" => Some(Self::Gptq),
            "ggml" => Some(Self::Ggml),
            _ => None,
        }
    }
}

#[derive(Debug, Args)]
pub struct QuantizerArgs {
    /// How weights are quantized
    #[arg(long, value_enum, default_value_t = Method::GptqClip)]
    quantizer: Method,
    /// Input channels that share a scale; several sizes compete. A last, shorter group has its own
    #[arg(long, value_delimiter = ',', default_value = "128")]
    group_size: Vec<usize>,
    /// Symmetric codes without zero points
    #[arg(long)]
    symmetric: bool,
}

/// Groups and zero points of a format.
type Layout = (GroupSize, Symmetry);

impl QuantizerArgs {
    /// Adds the quantizer.
    pub fn complete(&self, builder: Builder) -> anyhow::Result<Builder> {
        if self.quantizer == Method::Ggml && self.symmetric {
            bail!("blocks of ggml are what they are: leave `--symmetric` out");
        }
        let symmetry = if self.symmetric { Symmetry::Symmetric } else { Symmetry::Asymmetric };
        let layouts = self.group_size.iter().map(|&size| Ok((GroupSize::new(size)?, symmetry)));
        let layouts = layouts.collect::<anyhow::Result<Vec<_>>>()?;
        add(builder, self.quantizer, &layouts)
    }
}

/// Adds the quantizer that makes the formats of `plan`, and their widths as candidates: the one it was learned with, if `method` is
/// not given.
pub fn for_plan(builder: Builder, method: Option<Method>, plan: &Plan) -> anyhow::Result<Builder> {
    let learned = plan.provenance().quantizer.as_str();
    let Some(method) = method.or_else(|| Method::of_description(learned)) else {
        bail!(
            "the plan was learned with `{learned}`, which this command does not have: name another `--quantizer`"
        );
    };
    // What scales were sought for comes first, as it did then.
    let mut layouts: Vec<Layout> = sought_for(learned).into_iter().collect();
    let mut blocks: Vec<GgmlType> = Vec::new();
    for choice in plan.choices() {
        let (module, format) = (&choice.name, &choice.format);
        match (format, GgmlType::from_format(format)) {
            (_, Some(_)) if method != Method::Ggml => {
                bail!("the plan stores `{module}` as `{format}`, which only `--quantizer ggml` makes")
            }
            (_, Some(kind)) => push_new(&mut blocks, kind),
            (Format::Int { .. }, None) if method == Method::Ggml => {
                bail!("the plan stores `{module}` as `{format}`, which `--quantizer ggml` does not make")
            }
            (&Format::Int { group, symmetry, .. }, None) => push_new(&mut layouts, (group, symmetry)),
            _ => bail!("the plan stores `{module}` as `{format}`, which only its own quantizer can make"),
        }
    }
    let mut widths: Vec<u8> = plan.choices().iter().map(|choice| choice.format.bits().bits()).collect();
    widths.sort_unstable();
    widths.dedup();
    let builder = if method == Method::Ggml {
        let ggml = Ggml::new(blocks)?;
        let unweighted =
            Method::of_description(learned) == Some(Method::Ggml) && !learned.ends_with(WEIGHTED);
        builder.quantizer(if unweighted { ggml } else { ggml.weighted() })
    } else {
        add(builder, method, &layouts)?
    };
    Ok(builder.candidates(widths))
}

/// How [`Ggml`] ends its description if it looks at data.
const WEIGHTED: &str = " weighted";

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

/// Groups and zero points that the scales in this description of `awq` were sought for.
fn sought_for(description: &str) -> Option<Layout> {
    let (_, words) = description.split_once(" for rtn ")?;
    let mut words = words.split([' ', ',']);
    let symmetry = match words.next()? {
        "symmetric" => Symmetry::Symmetric,
        "asymmetric" => Symmetry::Asymmetric,
        _ => return None,
    };
    let group = GroupSize::new(words.next()?.strip_prefix('g')?.parse().ok()?).ok()?;
    Some((group, symmetry))
}

fn add(builder: Builder, method: Method, layouts: &[Layout]) -> anyhow::Result<Builder> {
    if method == Method::Hqq && layouts.iter().any(|&(_, symmetry)| symmetry == Symmetry::Symmetric) {
        bail!("half-quadratic quantization has zero points: leave `--symmetric` out");
    }
    let all = |make: fn(Layout) -> Box<dyn Quantizer>| Variants::new(layouts.iter().copied().map(make));
    Ok(match method {
        Method::Rtn => builder.quantizer(all(|layout| Box::new(rtn(layout)))),
        Method::RtnClip => builder.quantizer(all(|layout| Box::new(rtn(layout).clip(Clip::Mse)))),
        Method::Hqq => builder.quantizer(all(|(group, _)| Box::new(Hqq::new(group)))),
        Method::Gptq => builder.quantizer(all(|layout| Box::new(gptq(layout)))),
        Method::Ggml => builder.quantizer(Ggml::with_small_blocks().weighted()),
        Method::GptqClip => builder.quantizer(all(|layout| Box::new(gptq(layout).clip(Clip::Weighted)))),
        Method::Awq => {
            // Scales are one for all candidates. They are sought for widths in the middle, whatever
            // competes, and for the first group size, which `sought_for` finds again.
            let awq = Awq::new(rtn(layouts[0]), &[BitWidth::B3, BitWidth::B4]);
            builder.rescale(awq).quantizer(all(|layout| Box::new(rtn(layout).clip(Clip::Correlated))))
        }
    })
}

fn rtn((group, symmetry): Layout) -> Rtn {
    match symmetry {
        Symmetry::Symmetric => Rtn::symmetric(group),
        Symmetry::Asymmetric => Rtn::asymmetric(group),
    }
}

fn gptq((group, symmetry): Layout) -> Gptq {
    match symmetry {
        Symmetry::Symmetric => Gptq::symmetric(group),
        Symmetry::Asymmetric => Gptq::asymmetric(group),
    }
}

#[cfg(test)]
mod tests {
    use gamma::{Calibration, Gamma};

    use super::*;

    #[test]
    fn scales_are_sought_for_what_they_were_sought_for() {
        let fable = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/fable");
        let layouts = [32, 64].map(|size| (GroupSize::new(size).unwrap(), Symmetry::Symmetric));
        let builder = Gamma::builder().model(fable).calibration(Calibration::none());
        let run = add(builder, Method::Awq, &layouts).unwrap().build().unwrap();
        assert_eq!(sought_for(&run.quantizer()), Some(layouts[0]), "{}", run.quantizer());
    }

    #[test]
    fn every_method_is_recognised_by_its_description() {
        let fable = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/fable");
        let layouts = [(GroupSize::G128, Symmetry::Asymmetric)];
        for &method in Method::value_variants() {
            let builder = Gamma::builder().model(fable).calibration(Calibration::none());
            let run = add(builder, method, &layouts).unwrap().build().unwrap();
            let description = run.quantizer();
            assert_eq!(Method::of_description(&description), Some(method), "{description}");
            assert_eq!(description.ends_with(WEIGHTED), method == Method::Ggml, "{description}");
        }
    }
}
