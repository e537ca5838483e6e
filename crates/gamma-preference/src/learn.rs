//! The learning run: a survey of all candidates, then rounds of gradient steps on the logits.

use gamma_core::{Context, ScoreTable};

use crate::{
    Bank, Competitor, Inputs, LearnError, Network, Normaliser, Observations, Progress, Reading, Settings,
    State, fisher::fisher, learner::Learner, mixed, per_module, scores::logit_table, teacher, through,
};

/// What a learning run leaves behind.
#[derive(Clone, Debug)]
pub struct Learned {
    /// Mean in-context loss of every option, non-increasing in stored bits, in the units of the
    /// [`Objective`](crate::Objective).
    pub losses: ScoreTable,
    /// The same at every level of loss that was seen, with the size of the plans that lose as much: an
    /// option costs another share where much is lost. From the fewest bits to the most; none where
    /// blocks learn apart.
    pub contexts: Vec<Context>,
    /// Negated preference logits.
    pub logits: ScoreTable,
    /// The loss when every module chooses at random.
    pub random_loss: f64,
    /// The multiplier at the end: the slope of the normalised loss in bits per weight. `None`
    /// where budgets were drawn.
    pub multiplier: Option<f64>,
    /// What `losses` was made of.
    pub observations: Observations,
    pub(crate) competitors: Vec<Competitor>,
    /// What costs are in proportion to; nothing where they are not pooled.
    pub(crate) shapes: Vec<Vec<f64>>,
}

/// Learns preferences for all modules of `network` from the residual stream before its first
/// block, batch by batch: `inputs`.
///
/// Blocks are loaded one at a time. Reproducible from `settings.seed` on one backend.
///
/// # Errors
/// [`LearnError`] names the setting, block or module at fault; [`LearnError::Interrupted`] if
/// `progress` broke.
pub fn learn<N: Network>(
    network: &mut N,
    inputs: &dyn Inputs,
    settings: &Settings,
    progress: &mut dyn Progress,
) -> Result<Learned, LearnError<N::Error>> {
    go(network, inputs, settings, None, progress)
}

/// Goes on from `state`, which [`Progress::rest`] gave, to the same result bit for bit as
/// [`learn`] without an interruption, on the same backend and machine.
///
/// `network`, `inputs` and `settings` must be those of the run that was interrupted: what can be
/// told from the state is checked, but only the caller knows the weights, the data and the settings.
///
/// # Errors
/// As [`learn`]; [`LearnError::State`] if the state cannot be one of this run.
pub fn resume<N: Network>(
    network: &mut N,
    inputs: &dyn Inputs,
    settings: &Settings,
    state: State,
    progress: &mut dyn Progress,
) -> Result<Learned, LearnError<N::Error>> {
    go(network, inputs, settings, Some(state), progress)
}

fn go<N: Network>(
    network: &mut N,
    inputs: &dyn Inputs,
    settings: &Settings,
    state: Option<State>,
    progress: &mut dyn Progress,
) -> Result<Learned, LearnError<N::Error>> {
    settings.check()?;
    if inputs.count() == 0 {
        return Err(LearnError::Nothing("no calibration sequences"));
    }
    let blocks = network.competitors().to_vec();
    let empty = |block: &Vec<Competitor>| block.is_empty() || block.iter().any(|m| m.candidates.is_empty());
    if blocks.is_empty() || blocks.iter().any(empty) {
        return Err(LearnError::Nothing(
            "no blocks, a block without modules, or a module without candidates",
        ));
    }
    let mut learner = Learner::new(blocks, settings);
    learner.check_target()?;
    let rounds = match settings.objective.reading {
        Reading::PerModule => 0,
        _ => settings.rounds,
    };
    if let Some(state) = state {
        learner.restore(state, rounds, inputs.count())?;
    }
    let fisher = match settings.objective.normaliser {
        Normaliser::Fisher => fisher(network, inputs, settings)?,
        _ => Vec::new(),
    };
    for round in learner.resumed.round..=rounds {
        match settings.objective.reading {
            Reading::PerModule => {
                per_module::survey(&mut learner, network, inputs, progress)?;
            }
            Reading::Teacher => teacher::round(&mut learner, network, inputs, round, &fisher, progress)?,
            Reading::Mixed { last } => {
                let share = last * round as f64 / settings.rounds.max(1) as f64;
                mixed::round(&mut learner, network, inputs, round, &fisher, share, progress)?;
            }
            Reading::Through { hidden, divergence } => {
                let weights = through::Weights { hidden, divergence };
                through::round(&mut learner, network, inputs, round, &fisher, weights, progress)?;
            }
        }
        if settings.objective.reading != Reading::PerModule {
            learner.end_round(round)?;
        }
        learner.rest(round + 1, 0, &[], progress)?;
    }
    learned(learner)
}

/// What is known at the end.
pub(crate) fn learned<E: std::error::Error>(learner: Learner<'_>) -> Result<Learned, LearnError<E>> {
    let (losses, contexts) = learner.tables()?;
    let competitors: Vec<Competitor> = learner.blocks.into_iter().flatten().collect();
    Ok(Learned {
        losses,
        contexts,
        logits: logit_table(&competitors.iter().collect::<Vec<_>>(), &learner.logits)?,
        random_loss: learner.random_loss,
        multiplier: learner.multiplier.map(|multiplier| multiplier.lambda),
        observations: learner.seen,
        competitors,
        shapes: learner.shapes,
    })
}

/// Loads a block, and checks that its bank is what the network promised.
pub(crate) fn load<N: Network>(
    network: &mut N,
    block: usize,
) -> Result<Bank<N::Block>, LearnError<N::Error>> {
    let bank = network.load(block).map_err(|source| LearnError::Load { block, source })?;
    let modules = &network.competitors()[block];
    assert_eq!(bank.originals.len(), modules.len(), "one original weight per module");
    assert_eq!(bank.differences.len(), modules.len(), "one set of differences per module");
    for ((module, original), differences) in modules.iter().zip(&bank.originals).zip(&bank.differences) {
        assert_eq!(original.dims(), module.shape, "the original of `{}`", module.name);
        let expected = [module.candidates.len(), module.shape[0] * module.shape[1]];
        assert_eq!(differences.dims(), expected, "the differences of `{}`", module.name);
    }
    Ok(bank)
}
