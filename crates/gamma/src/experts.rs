//! Experts that calibration text hardly reaches: which they are, what their options are charged, and
//! that no measurement narrows them.
//!
//! An option of an expert that no token goes to costs nothing wherever costs are measured on that text,
//! so that every plan would give it the narrowest one. Other text may call the expert as often as its
//! siblings.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use gamma_core::{
    BitWidth, Context, Format, ModuleName, ModuleScores, Plan, Routing, ScoreKind, ScoreTable,
    ScoreTableError, ScoredOption, ScoresFile, SparseExpert, non_increasing,
};
use gamma_ilp::{Problem, Rule, Which};
use gamma_preference::ordered_sum;
use gamma_quant::CalibrationNeeds;

use crate::{
    Error, Event, Progress, Run,
    bank::{CandidateBank, decoded, prepared},
    filed::Room,
    observe::{FEWEST_TOKENS, floats, observe},
    stream::Stream,
};

/// What the calibration text tells of a module of an expert.
#[derive(Clone, Debug)]
struct Traffic {
    /// Tokens that went to it.
    tokens: usize,
    /// `E[x_j²]` by the statistics that the quantizer saw: those of all tokens where its own are too few.
    moments: Vec<f32>,
    /// `Σ_ij E[x_j²] (Q - W)_ij²` for every format in the bank.
    errors: Vec<(Format, f64)>,
}

impl Run {
    /// Notes in `scores`, which come from the text `sequences`, how that spread over experts, and
    /// charges options of those that it hardly reached as much as [`floored`] says.
    ///
    /// # Errors
    /// [`Error`] if a block cannot be loaded; [`Error::Interrupted`] if `progress` broke.
    pub(crate) fn heed_experts(
        &self,
        scores: ScoresFile,
        bank: &CandidateBank,
        sequences: &[Vec<u32>],
        room: &Room,
        progress: &mut dyn Progress,
    ) -> Result<ScoresFile, Error> {
        let Some(experts) = &self.config().experts else { return Ok(scores) };
        let tokens: usize = sequences.iter().map(Vec::len).sum();
        let mut traffic = self.traffic(bank, sequences, room, progress)?;
        let routing = routing(tokens, &traffic);
        if routing.is_sufficient() {
            return Ok(ScoresFile { routing: Some(routing), ..scores });
        }
        self.measure_errors(bank, &mut traffic)?;
        let even = tokens as f64 * experts.per_token as f64 / experts.count as f64;
        let floored = |table: &ScoreTable| floored(table, scores.kind, &traffic, even);
        let context = |context: &Context| {
            Ok::<_, ScoreTableError>(Context { table: floored(&context.table)?, ..context.clone() })
        };
        let contexts = scores.contexts.iter().map(context).collect::<Result<_, _>>()?;
        Ok(ScoresFile { table: floored(&scores.table)?, contexts, routing: Some(routing), ..scores })
    }

    /// How many tokens of the text go to each module of an expert, and what these are like.
    fn traffic(
        &self,
        bank: &CandidateBank,
        sequences: &[Vec<u32>],
        room: &Room,
        progress: &mut dyn Progress,
    ) -> Result<BTreeMap<ModuleName, Traffic>, Error> {
        let (blocks, scales) = (self.config().blocks, bank.scales());
        let mut hidden = Stream::new(&self.batches(sequences), room, self.device())?;
        let mut traffic = BTreeMap::new();
        for number in 0..blocks {
            let block = prepared(&self.decoder, &scales, number)?;
            let needs = match self.config().experts(number) {
                Some(_) => CalibrationNeeds::SecondMoment,
                None => CalibrationNeeds::Nothing,
            };
            for (input, seen) in block.inputs().iter().zip(observe(&block, &mut hidden, needs)?) {
                let Some(moments) = seen.stats.second_moment else { continue };
                let readers = input.readers.iter().map(|&slot| &block.modules()[slot]);
                for module in readers.filter(|module| module.expert.is_some()) {
                    let moments = moments.to_vec();
                    let own = Traffic { tokens: seen.tokens, moments, errors: Vec::new() };
                    traffic.insert(module.name.clone(), own);
                }
            }
            if progress.event(Event::Evaluating { done: number + 1, total: blocks }).is_break() {
                return Err(Error::Interrupted);
            }
        }
        Ok(traffic)
    }

    /// Fills in the errors of all formats that were made.
    fn measure_errors(
        &self,
        bank: &CandidateBank,
        traffic: &mut BTreeMap<ModuleName, Traffic>,
    ) -> Result<(), Error> {
        let scales = bank.scales();
        for number in (0..self.config().blocks).filter(|&number| self.config().experts(number).is_some()) {
            let block = prepared(&self.decoder, &scales, number)?;
            for (module, original) in block.modules().iter().zip(block.weights()) {
                let Some(own) = traffic.get_mut(&module.name) else { continue };
                let moments = TensorData::new(own.moments.clone(), [1, own.moments.len()]);
                let moments = Tensor::<2>::from_data(moments, self.decoder.device());
                for format in &self.formats {
                    let Some(weight) = bank.get(&module.name, format)? else { continue };
                    let weight = decoded(&weight, &self.decoder);
                    let sum = ordered_sum((weight - original.clone()).square() * moments.clone());
                    let error = floats(sum).first().copied().map_or(0.0, f64::from);
                    own.errors.push((format.clone(), error));
                }
            }
        }
        Ok(())
    }
}

fn routing(tokens: usize, traffic: &BTreeMap<ModuleName, Traffic>) -> Routing {
    let mut experts: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, own) in traffic {
        let (parent, _) = name.as_str().rsplit_once('.').unwrap_or((name.as_str(), ""));
        experts.insert(parent, own.tokens);
    }
    let few = experts.iter().filter(|&(_, &tokens)| tokens < FEWEST_TOKENS);
    let mut few: Vec<SparseExpert> =
        few.map(|(&name, &tokens)| SparseExpert { name: name.to_owned(), tokens }).collect();
    few.sort_by_key(|expert| expert.tokens);
    Routing { experts: experts.len(), tokens, fewest: FEWEST_TOKENS, few }
}

/// Modules that are compared with each other: those of one role, in one block or in all.
type Siblings<'a> = (Option<usize>, &'a str);

/// `table` with other costs for the modules of experts that fewer than [`FEWEST_TOKENS`] tokens went to.
///
/// A loss is raised to what it would be if the expert had an even share of the tokens, `even`: as many
/// times its error as its siblings' losses are of theirs, token for token. Siblings are the modules of
/// the same role in the block whose experts saw enough, else those of all blocks. Logits have no such
/// scale and become the mean of the siblings'.
fn floored(
    table: &ScoreTable,
    kind: ScoreKind,
    traffic: &BTreeMap<ModuleName, Traffic>,
    even: f64,
) -> Result<ScoreTable, ScoreTableError> {
    let mut modules = table.modules().to_vec();
    // Sums over siblings of costs and of tokens times errors; of logits by format, and their number.
    let mut losses: BTreeMap<(usize, Siblings<'_>), (f64, f64)> = BTreeMap::new();
    let mut logits: BTreeMap<(usize, Siblings<'_>, &Format), (f64, f64)> = BTreeMap::new();
    for module in table.modules() {
        let Some(own) = traffic.get(&module.name).filter(|own| own.tokens > 0) else { continue };
        let enough = own.tokens >= FEWEST_TOKENS;
        for option in &module.options {
            let error = error_of(own, option) * own.tokens as f64;
            for (at, siblings) in places(&module.name).into_iter().filter(|&(at, _)| enough || at == LAST) {
                let loss = losses.entry((at, siblings)).or_default();
                *loss = (loss.0 + option.cost, loss.1 + error);
                let logit = logits.entry((at, siblings, &option.format)).or_default();
                *logit = (logit.0 + option.cost, logit.1 + 1.0);
            }
        }
    }
    for module in &mut modules {
        let Some(own) = traffic.get(&module.name).filter(|own| own.tokens < FEWEST_TOKENS) else { continue };
        let name = module.name.clone();
        let ratio = |sums: Option<&(f64, f64)>| {
            let &(cost, unit) = sums?;
            let ratio = cost / unit;
            (ratio.is_finite() && (kind == ScoreKind::Logits || ratio > 0.0)).then_some(ratio)
        };
        for option in &mut module.options {
            let found = places(&name).into_iter().find_map(|place| match kind {
                ScoreKind::Logits => ratio(logits.get(&(place.0, place.1, &option.format))),
                _ => ratio(losses.get(&place))
                    .map(|per_token| per_token * even.max(own.tokens as f64) * error_of(own, option)),
            });
            let Some(cost) = found else { continue };
            if kind == ScoreKind::Logits || cost > option.cost {
                option.cost = cost;
                option.std_error = None; // nothing was measured
            }
        }
        let mut costs: Vec<f64> = module.options.iter().map(|option| option.cost).collect();
        non_increasing(&mut costs, &vec![1.0; module.options.len()]);
        module.options.iter_mut().zip(costs).for_each(|(option, cost)| option.cost = cost);
    }
    ScoreTable::new(modules)
}

/// The last of [`places`], where experts count as well that saw but a few tokens.
const LAST: usize = 2;

/// Where to look for siblings of a module, in order: in its block, in all blocks, and again in all
/// blocks, but also those that saw but a few tokens.
fn places(name: &ModuleName) -> [(usize, Siblings<'_>); 3] {
    [(0, (name.block(), name.role())), (1, (None, name.role())), (LAST, (None, name.role()))]
}

fn error_of(own: &Traffic, option: &ScoredOption) -> f64 {
    own.errors.iter().find(|(format, _)| *format == option.format).map_or(0.0, |(_, error)| *error)
}

/// `scores` with the costs of `like` for the modules of experts that the text hardly reached: other
/// costs of such a module are no better than those that were charged there.
pub(crate) fn as_floored(scores: ScoresFile, like: &ScoresFile) -> Result<ScoresFile, ScoreTableError> {
    let Some(routing) = like.routing.as_ref().filter(|routing| !routing.is_sufficient()) else {
        return Ok(scores);
    };
    let table = |table: &ScoreTable| {
        let modules = table.modules().iter().zip(like.table.modules());
        let pick = |(own, floored): (&ModuleScores, &ModuleScores)| {
            assert_eq!(own.name, floored.name, "scores of one run");
            if is_starved(routing, &own.name) { floored } else { own }.clone()
        };
        ScoreTable::new(modules.map(pick).collect())
    };
    let context = |context: &Context| {
        Ok::<_, ScoreTableError>(Context { table: table(&context.table)?, ..context.clone() })
    };
    let contexts = scores.contexts.iter().map(context).collect::<Result<_, _>>()?;
    Ok(ScoresFile { table: table(&scores.table)?, contexts, ..scores })
}

/// Whether the module belongs to an expert that few tokens went to.
fn is_starved(routing: &Routing, name: &ModuleName) -> bool {
    let parent = name.as_str().rsplit_once('.').map(|(parent, _)| parent);
    name.expert().is_some() && routing.few.iter().any(|expert| Some(expert.name.as_str()) == parent)
}

/// Modules that one rule names at most, so that its pattern stays small.
const NAMES: usize = 64;

/// Rules that keep groups of which no calibration token tells at least as wide as in `plan`. A
/// measurement on that text would find that they may be narrowed at no cost.
pub(crate) fn held(routing: &Routing, problem: &Problem<'_>, plan: &Plan) -> Result<Vec<Rule>, Error> {
    let space = problem.space()?;
    let mut widths: BTreeMap<BitWidth, Vec<String>> = BTreeMap::new();
    for group in 0..space.len() {
        if !space.modules(group).all(|module| is_starved(routing, &module.name)) {
            continue;
        }
        for module in space.modules(group) {
            if let Some(choice) = plan.choice(&module.name) {
                let literal = module.name.as_str().replace('.', "\\.");
                widths.entry(choice.format.bits()).or_default().push(literal);
            }
        }
    }
    let mut rules = Vec::new();
    for (bits, names) in widths {
        for names in names.chunks(NAMES) {
            let modules = format!("re:{}", names.join("|")).parse();
            let modules = modules.expect("an alternation of escaped names");
            rules.push(Rule::Min { modules, option: Which::Bits(bits) });
        }
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use gamma_core::{Budget, GroupSize};

    use super::*;

    fn format(bits: BitWidth) -> Format {
        Format::symmetric(bits, GroupSize::G128)
    }

    /// Costs at 2 and at 4 bits of the up projection of expert `expert` in block `block`.
    fn module(block: usize, expert: usize, costs: [f64; 2]) -> ModuleScores {
        let options = [BitWidth::B2, BitWidth::B4].into_iter().zip(costs).map(|(bits, cost)| {
            let size = format(bits).stored_bits([8, 8]).expect("integer");
            ScoredOption { std_error: Some(0.1), ..ScoredOption::new(format(bits), size, cost) }
        });
        let name = ModuleName::new(format!("model.layers.{block}.mlp.experts.{expert}.up_proj"));
        ModuleScores { name, shape: [8, 8], options: options.collect() }
    }

    fn traffic(tokens: usize, errors: [f64; 2]) -> Traffic {
        let widths = [BitWidth::B2, BitWidth::B4];
        let moments = Vec::new();
        Traffic {
            tokens,
            moments,
            errors: widths.into_iter().zip(errors).map(|(b, e)| (format(b), e)).collect(),
        }
    }

    /// Of 400 tokens to eight experts in two blocks, two each. In the first block a token's error costs
    /// 0.01, in the second ten times as much.
    fn table() -> (ScoreTable, BTreeMap<ModuleName, Traffic>) {
        let rows = [
            (module(0, 0, [4.0, 1.0]), traffic(200, [2.0, 0.5])),
            (module(0, 1, [1.0, 0.25]), traffic(200, [0.5, 0.125])),
            (module(0, 2, [0.0, 0.0]), traffic(0, [3.0, 1.0])),
            (module(0, 3, [9.0, 0.0]), traffic(31, [3.0, 1.0])),
            (module(1, 0, [80.0, 20.0]), traffic(400, [2.0, 0.5])),
        ];
        let names = rows.iter().map(|(module, traffic)| (module.name.clone(), traffic.clone())).collect();
        (ScoreTable::new(rows.into_iter().map(|(module, _)| module).collect()).expect("a table"), names)
    }

    fn costs(table: &ScoreTable) -> Vec<[f64; 2]> {
        table.modules().iter().map(|module| [module.options[0].cost, module.options[1].cost]).collect()
    }

    #[test]
    fn an_expert_without_tokens_costs_what_its_siblings_would_with_its_errors_and_an_even_share() {
        let (table, traffic) = table();
        let found = floored(&table, ScoreKind::Loss, &traffic, 200.0).expect("a table");
        // 0.01 per token and error, 200 tokens: 6 and 2. What was measured is kept where it is more.
        let expected = [[4.0, 1.0], [1.0, 0.25], [6.0, 2.0], [9.0, 2.0], [80.0, 20.0]];
        for (found, expected) in costs(&found).iter().zip(expected) {
            assert!(
                (found[0] - expected[0]).abs() < 1e-9 && (found[1] - expected[1]).abs() < 1e-9,
                "{found:?}"
            );
        }
        let errors = found.modules().iter().map(|module| module.options[0].std_error);
        assert_eq!(errors.collect::<Vec<_>>(), [Some(0.1), Some(0.1), None, Some(0.1), Some(0.1)]);
    }

    #[test]
    fn without_siblings_in_the_block_those_of_other_blocks_count() {
        let (table, mut traffic) = table();
        for number in [0, 1] {
            traffic.get_mut(&module(0, number, [0.0; 2]).name).expect("there").tokens = 0;
        }
        let found = floored(&table, ScoreKind::Loss, &traffic, 200.0).expect("a table");
        assert!((costs(&found)[2][0] - 60.0).abs() < 1e-9, "{:?}", costs(&found));
        // And where no expert saw enough, those that saw a few.
        traffic.get_mut(&module(1, 0, [0.0; 2]).name).expect("there").tokens = 20;
        let found = floored(&table, ScoreKind::Loss, &traffic, 200.0).expect("a table");
        let per_token = (80.0 + 20.0 + 9.0) / (20.0 * 2.5 + 31.0 * 4.0);
        assert!((costs(&found)[2][0] - per_token * 200.0 * 3.0).abs() < 1e-9, "{:?}", costs(&found));
    }

    #[test]
    fn logits_of_experts_without_tokens_are_the_mean_of_the_siblings() {
        let (table, traffic) = table();
        let found = floored(&table, ScoreKind::Logits, &traffic, 200.0).expect("a table");
        let [narrow, wide] = costs(&found)[2];
        assert!((narrow - 2.5).abs() < 1e-12 && (wide - 0.625).abs() < 1e-12, "{narrow}, {wide}");
        assert_eq!(found.modules()[..2], table.modules()[..2]);
    }

    #[test]
    fn what_no_token_tells_of_is_held_at_its_width_unless_it_is_tied_to_more() {
        let (table, traffic) = table();
        let routing = routing(400, &traffic);
        assert_eq!(routing.few.iter().map(|one| one.tokens).collect::<Vec<_>>(), [0, 31]);
        let problem = Problem::new(&table, ScoreKind::Loss, Budget::average_bits(4.0));
        let plan = Plan::from_picks(&table, &[0, 0, 1, 0, 0], None).expect("a plan");
        let rules = held(&routing, &problem, &plan).expect("a space");
        let texts: Vec<String> = rules.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        let space = problem.clone().rules(rules);
        let space = space.space().expect("a space");
        assert_eq!((0..5).map(|group| space.places_of(group)).collect::<Vec<_>>(), [2, 2, 1, 2, 2]);
        // Tied to experts that were measured, they move with them.
        let tied = problem.rule("tie llama.cpp".parse().expect("a rule"));
        assert!(held(&routing, &tied, &plan).expect("a space").is_empty());
    }
}
