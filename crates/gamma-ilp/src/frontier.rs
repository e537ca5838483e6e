//! Cost against size, for all budgets at once.

use gamma_core::{Budget, Format, Measure, ModuleName};

use crate::{Problem, ProjectError, knapsack, program::Program};

/// The supported points of the curve of cost against size: plans that no mixture of others beats.
/// Each is the cheapest plan of its own size.
///
/// ```
/// # use gamma_core::{BitWidth, Format, GroupSize, ModuleName, ModuleScores, ScoredOption};
/// use gamma_core::{Budget, ScoreKind, ScoreTable};
/// use gamma_ilp::Problem;
/// # let options = [(BitWidth::B2, 9.0), (BitWidth::B3, 2.0), (BitWidth::B4, 1.0)].map(|(bits, cost)| {
/// #     let format = Format::symmetric(bits, GroupSize::G128);
/// #     ScoredOption::new(format.clone(), format.stored_bits([8, 128]).expect("integer"), cost)
/// # });
/// # let module = |name| ModuleScores { name: ModuleName::new(name), shape: [8, 128], options: options.to_vec() };
/// # let table: ScoreTable = ScoreTable::new(vec![module("a"), module("b")])?;
///
/// let frontier = Problem::new(&table, ScoreKind::Loss, Budget::average_bits(3.0)).frontier()?;
/// let costs: Vec<f64> = frontier.points.iter().map(|point| point.cost).collect();
/// assert_eq!(costs, [18.0, 11.0, 4.0, 3.0, 2.0]);
/// assert_eq!(frontier.knee, Some(2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Frontier {
    /// From the smallest plan to the cheapest one.
    pub points: Vec<FrontierPoint>,
    /// Number of the point farthest below the straight line from the first to the last one: beyond
    /// it, bits buy less than they do on average.
    pub knee: Option<usize>,
    /// What the sizes count.
    pub measure: Measure,
    /// Weights of the allocated modules.
    pub weights: u64,
}

/// One supported plan.
#[derive(Clone, Debug, PartialEq)]
pub struct FrontierPoint {
    /// Size of the plan.
    pub bits: u64,
    /// Its cost.
    pub cost: f64,
    /// What changed from the point before; `None` at the first one.
    pub step: Option<FrontierStep>,
}

/// One module, or some that are tied, in another format.
#[derive(Clone, Debug, PartialEq)]
pub struct FrontierStep {
    /// Cost saved per bit: the price of a bit at which the step is just worth it.
    pub slope: f64,
    /// The module, the first one where several are tied.
    pub module: ModuleName,
    /// Its new format.
    pub format: Format,
}

impl Problem<'_> {
    /// The curve of cost against size. Ties, pins, ranges and exclusions hold; the budget plays no
    /// part.
    ///
    /// # Errors
    /// [`ProjectError`] if a rule is at fault; [`ProjectError::NotAKnapsack`] where constraints
    /// join modules, since the curve has no such points then.
    pub fn frontier(&self) -> Result<Frontier, ProjectError> {
        // No budget but what it counts: a small one would be an error.
        let problem = match self.budget {
            Budget::CodeBitsPerWeight(_) => self.clone().budget(Budget::CodeBitsPerWeight(16.0)),
            _ => self.clone().budget(Budget::bytes(u64::MAX)),
        };
        let program = Program::new(&problem)?;
        if !program.joints.is_empty() {
            return Err(ProjectError::NotAKnapsack { constraints: program.joints.labels() });
        }
        let (mut picks, edges) = knapsack::sweep(&program.instance);
        let (mut bits, mut cost) = (program.instance.size(&picks), program.instance.cost(&picks));
        let mut points = Vec::with_capacity(edges.len() + 1);
        points.push(FrontierPoint { bits, cost, step: None });
        for edge in edges {
            let items = program.instance.group(edge.group);
            let (from, to) = (items[picks[edge.group]], items[edge.place]);
            picks[edge.group] = edge.place;
            bits = bits + to.size - from.size;
            cost += to.cost - from.cost;
            let member = program.units.members(edge.group)[0] as usize;
            let module = &program.table.modules()[member];
            let option = program.units.picks(edge.group, edge.place)[0] as usize;
            let format = module.options[option].format.clone();
            let step = FrontierStep { slope: edge.slope, module: module.name.clone(), format };
            points.push(FrontierPoint { bits, cost, step: Some(step) });
        }
        let knee = knee(&points);
        Ok(Frontier { points, knee, measure: program.limit.measure, weights: program.table.weights() })
    }
}

/// The point farthest below the line through both ends, with both axes from 0 to 1.
fn knee(points: &[FrontierPoint]) -> Option<usize> {
    let (first, last) = (points.first()?, points.last()?);
    let (width, height) = ((last.bits - first.bits) as f64, first.cost - last.cost);
    let below = |point: &FrontierPoint| {
        let (x, y) = ((point.bits - first.bits) as f64 / width, (point.cost - last.cost) / height);
        1.0 - x - y
    };
    let best = points.iter().enumerate().max_by(|a, b| below(a.1).total_cmp(&below(b.1)))?;
    // On a straight line it is rounding that decides which point is the lowest.
    (width > 0.0 && height > 0.0 && below(best.1) > 1e-9).then_some(best.0)
}
