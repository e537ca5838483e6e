//! The JSON files: `scores.json` and `plan.json`.
//!
//! Both name their format and version in the first key (`"format": "gamma.scores/1"`). Unknown
//! keys are ignored, an unknown format or version is refused.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Budget, Certificate, Choice, Context, Format, ModuleName, ModuleScores, Origin, Plan, PlanError,
    Provenance, Remainder, Routing, ScoreKind, ScoreTable, ScoreTableError,
};

/// The content of a score file.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoresFile {
    /// What the costs mean.
    pub kind: ScoreKind,
    /// Where they came from.
    pub provenance: Provenance,
    /// What the model holds besides the modules of the table, where that is known.
    pub remainder: Option<Remainder>,
    /// How calibration text spread over experts, for a model that has some.
    pub routing: Option<Routing>,
    /// The costs.
    pub table: ScoreTable,
    /// What was measured around single plans; see [`Context`].
    pub contexts: Vec<Context>,
}

/// The content of a plan file.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanFile {
    /// The budget as the user gave it; `None` for a plan that no budget led to.
    pub budget: Option<Budget>,
    /// Where the scores behind the plan came from.
    pub provenance: Provenance,
    /// What the plan had to obey besides the budget, in words.
    pub constraints: Vec<String>,
    /// Modules that stay as they are, by exact name.
    pub excluded: Vec<ModuleName>,
    /// What the model holds besides the modules of the plan, where that is known; excluded modules
    /// are among it.
    pub remainder: Option<Remainder>,
    /// The decision.
    pub plan: Plan,
}

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Not the JSON that was expected.
    #[error("not a valid {expected} file: line {}, column {}", source.line(), source.column())]
    Json {
        /// The format that was expected.
        expected: &'static str,
        /// What the parser met.
        #[source]
        source: serde_json::Error,
    },
    /// A file of another kind or version.
    #[error("the file is of format `{found}`, this version of gamma reads `{expected}`")]
    Format {
        /// The format that was expected.
        expected: &'static str,
        /// What the file says it is.
        found: String,
    },
    /// The table in the file breaks a promise.
    #[error(transparent)]
    Table(#[from] ScoreTableError),
    /// The plan in the file breaks a promise.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A stored size that contradicts the format.
    #[error("module `{module}` of shape {shape:?}: `{format}` takes {expected} stored bits, not {found}")]
    StoredBits {
        /// The module.
        module: ModuleName,
        /// `[out_features, in_features]`.
        shape: [usize; 2],
        /// How its weights are stored.
        format: Format,
        /// What this takes by [`Format::stored_bits`].
        expected: u64,
        /// What the file says.
        found: u64,
    },
}

const SCORES: &str = "gamma.scores/1";
const PLAN: &str = "gamma.plan/1";

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
}

#[derive(Serialize, Deserialize)]
struct ScoresJson {
    format: String,
    generator: String,
    kind: ScoreKind,
    provenance: Provenance,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remainder: Option<Remainder>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    routing: Option<Routing>,
    modules: Vec<ModuleScores>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    contexts: Vec<ContextJson>,
}

#[derive(Serialize, Deserialize)]
struct ContextJson {
    stored_bits: u64,
    #[serde(default)]
    origin: Origin,
    modules: Vec<ModuleScores>,
}

#[derive(Serialize, Deserialize)]
struct PlanJson {
    format: String,
    generator: String,
    budget: Option<Budget>,
    stored_bits: u64,
    weights: u64,
    provenance: Provenance,
    certificate: Option<Certificate>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    constraints: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    excluded: Vec<ModuleName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remainder: Option<Remainder>,
    modules: Vec<Choice>,
}

fn generator() -> String {
    format!("gamma {}", env!("CARGO_PKG_VERSION"))
}

/// Parses `json` after checking that it says it is `expected`.
fn parse<T: DeserializeOwned>(json: &str, expected: &'static str) -> Result<T, FileError> {
    let read_error = |source| FileError::Json { expected, source };
    let header: Header = serde_json::from_str(json).map_err(read_error)?;
    if header.format != expected {
        return Err(FileError::Format { expected, found: header.format });
    }
    serde_json::from_str(json).map_err(read_error)
}

/// Refuses a size that an integer format cannot have. Custom formats are taken at their word.
fn check_size(module: &ModuleName, shape: [usize; 2], format: &Format, found: u64) -> Result<(), FileError> {
    match format.stored_bits(shape) {
        Some(expected) if expected != found => {
            let (module, format) = (module.clone(), format.clone());
            Err(FileError::StoredBits { module, shape, format, expected, found })
        }
        _ => Ok(()),
    }
}

/// A table whose sizes are those of its formats.
fn checked(modules: Vec<ModuleScores>) -> Result<ScoreTable, FileError> {
    let table = ScoreTable::new(modules)?;
    for module in table.modules() {
        for option in &module.options {
            check_size(&module.name, module.shape, &option.format, option.stored_bits)?;
        }
    }
    Ok(table)
}

fn write<T: Serialize>(value: &T) -> String {
    let mut json = serde_json::to_string_pretty(value).expect("plain structs of numbers and text serialize");
    json.push('\n');
    json
}

impl ScoresFile {
    /// Parses a score file.
    ///
    /// # Errors
    /// [`FileError`] says what is wrong and where.
    pub fn from_json(json: &str) -> Result<Self, FileError> {
        let ScoresJson { kind, provenance, remainder, routing, modules, contexts, .. } = parse(json, SCORES)?;
        let context = |ContextJson { stored_bits, origin, modules }: ContextJson| {
            Ok::<_, FileError>(Context { stored_bits, origin, table: checked(modules)? })
        };
        let contexts = contexts.into_iter().map(context).collect::<Result<_, _>>()?;
        Ok(Self { kind, provenance, remainder, routing, table: checked(modules)?, contexts })
    }

    /// The file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        write(&ScoresJson {
            format: SCORES.to_owned(),
            generator: generator(),
            kind: self.kind,
            provenance: self.provenance.clone(),
            remainder: self.remainder.clone(),
            routing: self.routing.clone(),
            modules: self.table.modules().to_vec(),
            contexts: self
                .contexts
                .iter()
                .map(|Context { stored_bits, origin, table }| ContextJson {
                    stored_bits: *stored_bits,
                    origin: *origin,
                    modules: table.modules().to_vec(),
                })
                .collect(),
        })
    }
}

impl PlanFile {
    /// Parses a plan file.
    ///
    /// # Errors
    /// [`FileError`] says what is wrong and where.
    pub fn from_json(json: &str) -> Result<Self, FileError> {
        let PlanJson { budget, provenance, certificate, constraints, excluded, remainder, modules, .. } =
            parse(json, PLAN)?;
        let plan = Plan::from_parts(modules, certificate)?;
        if let Some(name) = excluded.iter().find(|name| plan.choice(name).is_some()) {
            return Err(FileError::Plan(PlanError::Duplicate(name.clone())));
        }
        for choice in plan.choices() {
            check_size(&choice.name, choice.shape, &choice.format, choice.stored_bits)?;
        }
        Ok(Self { budget, provenance, constraints, excluded, remainder, plan })
    }

    /// The file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        write(&PlanJson {
            format: PLAN.to_owned(),
            generator: generator(),
            budget: self.budget,
            stored_bits: self.plan.stored_bits(),
            weights: self.plan.weights(),
            provenance: self.provenance.clone(),
            certificate: self.plan.certificate().cloned(),
            constraints: self.constraints.clone(),
            excluded: self.excluded.clone(),
            remainder: self.remainder.clone(),
            modules: self.plan.choices().to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        BitWidth, CacheShape, Digest, FixedRole, FixedTensor, GgufMatrix, GgufOption, GgufRemainder,
        GroupSize, Measure, ScoredOption, SparseExpert,
    };

    const SHAPE: [usize; 2] = [10, 10];

    fn scores() -> ScoresFile {
        scores_of([0.1 + 0.2, 1e-17])
    }

    /// A module with two options of these costs.
    fn scores_of(costs: [f64; 2]) -> ScoresFile {
        let digest = Digest::sha256([7; 32]);
        let option = |bits, cost| {
            let format = Format::asymmetric(bits, GroupSize::G128);
            let stored_bits = format.stored_bits(SHAPE).unwrap();
            ScoredOption::new(format, stored_bits, cost)
        };
        let module = ModuleScores {
            name: ModuleName::new("model.layers.0.mlp.up_proj"),
            shape: SHAPE,
            options: vec![option(BitWidth::B2, costs[0]), option(BitWidth::B4, costs[1])],
        };
        ScoresFile {
            kind: ScoreKind::Loss,
            provenance: Provenance {
                architecture: "LlamaForCausalLM".into(),
                weights: digest,
                calibration: digest,
                quantizer: "rtn".into(),
                learner: "none".into(),
                settings: digest,
                version: Some("0.1.0".into()),
                device: Some("cpu".into()),
                named: [("rounds".into(), "8".into())].into(),
                tensors: [("wte".into(), digest)].into(),
            },
            remainder: Some(remainder()),
            routing: Some(Routing {
                experts: 4,
                tokens: 100,
                fewest: 32,
                few: vec![SparseExpert { name: "model.layers.0.mlp.experts.3".into(), tokens: 0 }],
            }),
            table: ScoreTable::new(vec![module.clone()]).unwrap(),
            contexts: vec![Context {
                stored_bits: 300,
                origin: Origin::Learned,
                table: ScoreTable::new(vec![module]).unwrap(),
            }],
        }
    }

    #[test]
    fn scores_read_back_exactly() {
        assert_eq!(ScoresFile::from_json(&scores().to_json()).unwrap(), scores());
    }

    #[test]
    fn plans_read_back_exactly() {
        let scores = scores();
        let certificate = Certificate {
            solver: "test".into(),
            cost: 0.3,
            bound: 0.3,
            measure: Measure::StoredBits,
            limit_bits: 500,
            used_bits: 384,
        };
        let file = plan(scores, Some(certificate));
        assert_eq!(PlanFile::from_json(&file.to_json()).unwrap(), file);
    }

    fn remainder() -> Remainder {
        let tensor = FixedTensor { name: "wte".into(), role: FixedRole::Embedding, bytes: 77 };
        let cache = CacheShape { blocks: 2, kv_heads: 1, head_dim: 8 };
        let (name, role, kind) = (ModuleName::new("wte"), FixedRole::Embedding, Some("q8_0".to_owned()));
        let options = vec![GgufOption { kind: "q4_0".to_owned(), bytes: 64, cost: 0.25 }];
        let matrices = vec![GgufMatrix { name, role, shape: SHAPE, kind, bytes: 96, options }];
        let gguf = Some(GgufRemainder { header: 320, vectors: 64, matrices });
        Remainder { tensors: vec![tensor], cache: Some(cache), weight_bits: 16, container: 640, gguf }
    }

    /// The plan of the narrowest options.
    fn plan(scores: ScoresFile, certificate: Option<Certificate>) -> PlanFile {
        PlanFile {
            budget: Some(Budget::average_bits(2.5)),
            plan: Plan::from_picks(&scores.table, &[0], certificate).unwrap(),
            constraints: vec!["min * 2".into()],
            excluded: vec![ModuleName::new("model.layers.0.mlp.gate_proj")],
            remainder: scores.remainder,
            provenance: scores.provenance,
        }
    }

    #[test]
    fn sizes_that_contradict_format_or_shape_are_refused() {
        let (table, plan) = (scores().to_json(), plan(scores(), None).to_json());
        for (from, to) in [("\"stored_bits\": 384", "\"stored_bits\": 385"), ("asym", "sym")] {
            let error = ScoresFile::from_json(&table.replace(from, to)).unwrap_err();
            assert!(matches!(error, FileError::StoredBits { .. }), "{error}");
            let error = PlanFile::from_json(&plan.replace(from, to)).unwrap_err();
            assert!(matches!(error, FileError::StoredBits { .. }), "{error}");
        }
        let square =
            |json: &str, side: &str| json.replace("10,\n        10", &format!("{side},\n        10"));
        for side in ["0", "18446744073709551615"] {
            let error = ScoresFile::from_json(&square(&table, side)).unwrap_err();
            assert!(matches!(error, FileError::Table(ScoreTableError::Shape { .. })), "{error}");
            let error = PlanFile::from_json(&square(&plan, side)).unwrap_err();
            assert!(matches!(error, FileError::Plan(PlanError::Shape { .. })), "{error}");
        }
    }

    #[test]
    fn files_without_the_newer_keys_are_read() {
        let mut scores = scores();
        (scores.remainder, scores.routing) = (None, None);
        scores.provenance.version = None;
        scores.provenance.named.clear();
        scores.provenance.tensors.clear();
        let json = scores.to_json();
        let newer = ["remainder", "routing", "version", "named", "tensors"];
        assert!(!newer.iter().any(|key| json.contains(key)), "{json}");
        assert_eq!(ScoresFile::from_json(&scores.to_json()).unwrap(), scores);
        let mut file = plan(scores, None);
        (file.constraints, file.excluded) = (Vec::new(), Vec::new());
        let json = file.to_json();
        assert!(!json.contains("excluded") && !json.contains("constraints"), "{json}");
        assert_eq!(PlanFile::from_json(&json).unwrap(), file);
    }

    #[test]
    fn a_module_cannot_be_planned_and_excluded() {
        let mut file = plan(scores(), None);
        file.excluded = vec![file.plan.choices()[0].name.clone()];
        let error = PlanFile::from_json(&file.to_json()).unwrap_err();
        assert!(matches!(error, FileError::Plan(PlanError::Duplicate(_))), "{error}");
    }

    #[test]
    fn malformed_plans_are_refused() {
        let mut choices = plan(scores(), None).plan.choices().to_vec();
        assert_eq!(Plan::from_parts(Vec::new(), None), Err(PlanError::Empty));
        choices.push(choices[0].clone());
        let twice = choices[0].name.clone();
        assert_eq!(Plan::from_parts(choices.clone(), None), Err(PlanError::Duplicate(twice)));
        choices[1].name = ModuleName::new("another");
        choices[1].stored_bits = u64::MAX;
        assert_eq!(Plan::from_parts(choices, None), Err(PlanError::TooLarge));
    }

    proptest! {
        #[test]
        fn every_finite_cost_reads_back_to_the_last_bit(
            costs in prop::array::uniform2(prop::num::f64::ANY.prop_filter("finite", |cost| cost.is_finite())),
        ) {
            let file = ScoresFile::from_json(&scores_of(costs).to_json()).unwrap();
            let read: Vec<_> = file.table.modules()[0].options.iter().map(|o| o.cost.to_bits()).collect();
            prop_assert_eq!(read, costs.map(f64::to_bits).to_vec());
        }
    }

    #[test]
    fn other_formats_and_versions_are_refused_and_unknown_keys_ignored() {
        let json = scores().to_json();
        let newer = json.replace("gamma.scores/1", "gamma.scores/2");
        assert!(matches!(ScoresFile::from_json(&newer), Err(FileError::Format { .. })));
        assert!(matches!(PlanFile::from_json(&json), Err(FileError::Format { .. })));
        let extended = json.replacen('{', "{\"comment\": [1, 2],", 1);
        assert!(ScoresFile::from_json(&extended).is_ok());
    }

    #[test]
    fn damaged_files_are_refused_with_a_place() {
        let json = scores().to_json();
        let error = ScoresFile::from_json(&json[..json.len() / 2]).unwrap_err();
        assert!(error.to_string().contains("line"), "{error}");
        let bad = json.replace("\"cost\": 1e-17", "\"cost\": \"cheap\"");
        assert!(matches!(ScoresFile::from_json(&bad), Err(FileError::Json { .. })));
    }
}
