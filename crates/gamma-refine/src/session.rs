//! One search at work: it measures, counts, and hears when to stop.

use std::ops::Range;

use gamma_core::Plan;
use gamma_ilp::{Problem, ProjectError, Space};

use crate::{
    Estimate, Examiner, Measured, Method, Outcome, Progress, RefineError, Report, Spent, Split, Status, Step,
};

/// Why a search does not go on.
#[derive(Debug)]
pub(crate) enum Halt<E: std::error::Error + 'static> {
    /// It was told to stop.
    Stopped,
    Failed(RefineError<E>),
}

impl<E: std::error::Error + 'static> From<RefineError<E>> for Halt<E> {
    fn from(error: RefineError<E>) -> Self {
        Self::Failed(error)
    }
}

impl<E: std::error::Error + 'static> From<ProjectError> for Halt<E> {
    fn from(error: ProjectError) -> Self {
        Self::Failed(error.into())
    }
}

/// The status a search ended with; a stop is one of them, a failure is not.
pub(crate) fn ended<E: std::error::Error + 'static>(
    result: Result<Status, Halt<E>>,
) -> Result<Status, RefineError<E>> {
    match result {
        Ok(status) => Ok(status),
        Err(Halt::Stopped) => Ok(Status::Stopped),
        Err(Halt::Failed(error)) => Err(error),
    }
}

/// A search's means of measuring.
pub(crate) struct Session<'a, X: Examiner> {
    examiner: &'a mut X,
    progress: &'a mut dyn Progress,
    split: &'a Split,
    method: Method,
    stopped: bool,
    pub(crate) spent: Spent,
    pub(crate) round: usize,
    pub(crate) rounds: usize,
    pub(crate) moves: (usize, usize),
    pub(crate) accepted: usize,
    pub(crate) rejected: usize,
    /// Lowest accepted mean on the gate.
    pub(crate) best: Option<f64>,
    /// The plan that the search starts from.
    pub(crate) before: Measured,
}

/// A plan in hand, as a point of the space, with what is measured of it.
#[derive(Clone, Debug)]
pub(crate) struct Stand {
    pub(crate) places: Vec<usize>,
    /// Window by window: the whole probe, or nothing yet.
    pub(crate) probe: Vec<f64>,
    /// Window by window: the whole gate, or nothing yet.
    pub(crate) gate: Vec<f64>,
}

impl Stand {
    pub(crate) fn new(places: Vec<usize>) -> Self {
        Self { places, probe: Vec::new(), gate: Vec::new() }
    }

    pub(crate) fn measured(&self) -> Measured {
        let estimate = |values: &Vec<f64>| (!values.is_empty()).then(|| Estimate::of(values));
        Measured { probe: estimate(&self.probe), gate: estimate(&self.gate) }
    }
}

impl<'a, X: Examiner> Session<'a, X> {
    pub(crate) fn new(
        method: Method,
        examiner: &'a mut X,
        split: &'a Split,
        progress: &'a mut dyn Progress,
        rounds: usize,
    ) -> Result<Self, RefineError<X::Error>> {
        split.check(examiner.windows())?;
        Ok(Self {
            examiner,
            progress,
            split,
            method,
            stopped: false,
            spent: Spent::default(),
            round: 0,
            rounds,
            moves: (0, 0),
            accepted: 0,
            rejected: 0,
            best: None,
            before: Measured::default(),
        })
    }

    pub(crate) fn split(&self) -> &'a Split {
        self.split
    }

    /// The divergence of each window, never NaN.
    fn measure(
        &mut self,
        plan: &Plan,
        windows: Range<usize>,
        gated: bool,
    ) -> Result<Vec<f64>, Halt<X::Error>> {
        if windows.is_empty() {
            return Ok(Vec::new());
        }
        if self.stopped {
            return Err(Halt::Stopped);
        }
        let answer = self.examiner.divergence(plan, windows.clone());
        let mut values =
            answer.map_err(|source| RefineError::Examine { windows: windows.clone(), source })?;
        if values.len() != windows.len() {
            return Err(RefineError::Answer { windows, found: values.len() }.into());
        }
        // NaN has no order, and a difference of two infinities would be NaN again only where both
        // plans are broken: the plan in hand never is.
        for value in &mut values {
            if !value.is_finite() {
                *value = f64::INFINITY;
            }
        }
        self.spent.evaluations += 1;
        self.spent.windows += windows.len() as u64;
        let step = Step {
            method: self.method,
            round: self.round,
            rounds: self.rounds,
            moves: self.moves,
            spent: self.spent,
            measured: Estimate::of(&values).mean,
            gated,
            best: self.best,
            accepted: self.accepted,
            rejected: self.rejected,
        };
        self.stopped = self.progress.step(&step).is_break();
        Ok(values)
    }

    /// Measures windows `part` of the probe, counted from its beginning.
    pub(crate) fn probe(&mut self, plan: &Plan, part: Range<usize>) -> Result<Vec<f64>, Halt<X::Error>> {
        let start = self.split.probe().start;
        self.measure(plan, start + part.start..start + part.end, false)
    }

    pub(crate) fn whole_probe(&mut self, plan: &Plan) -> Result<Vec<f64>, Halt<X::Error>> {
        self.measure(plan, self.split.probe(), false)
    }

    pub(crate) fn gate(&mut self, plan: &Plan) -> Result<Vec<f64>, Halt<X::Error>> {
        self.measure(plan, self.split.gate(), true)
    }

    /// Measures the plan that a search starts from on the whole text.
    pub(crate) fn open(&mut self, space: &Space<'_>, stand: &mut Stand) -> Result<(), Halt<X::Error>> {
        let plan = space.plan(&stand.places);
        self.settle(&plan)?;
        let finite = |values: &[f64], windows| {
            if values.iter().all(|value| value.is_finite()) {
                Ok(())
            } else {
                Err(RefineError::NotFinite { windows })
            }
        };
        let probe = self.whole_probe(&plan)?;
        finite(&probe, self.split.probe())?;
        stand.probe = probe;
        self.before = stand.measured();
        let gate = self.gate(&plan)?;
        finite(&gate, self.split.gate())?;
        self.best = Some(Estimate::of(&gate).mean);
        stand.gate = gate;
        self.before = stand.measured();
        Ok(())
    }

    /// Counts a plan that takes the place of the one in hand.
    pub(crate) fn accept(&mut self, gate: &[f64]) {
        self.accepted += 1;
        self.best = Some(Estimate::of(gate).mean);
    }

    pub(crate) fn settle(&mut self, plan: &Plan) -> Result<(), Halt<X::Error>> {
        if self.stopped {
            return Err(Halt::Stopped);
        }
        self.examiner.settle(plan).map_err(|source| RefineError::Settle(source).into())
    }

    pub(crate) fn report(&self, status: Status, after: Measured) -> Report {
        let &Self { spent, accepted, rejected, before, .. } = self;
        Report { status, spent, accepted, rejected, before, after }
    }

    pub(crate) fn outcome(&self, space: &Space<'_>, status: Status, stand: &Stand) -> Outcome {
        Outcome { plan: space.plan(&stand.places), report: self.report(status, stand.measured()) }
    }
}

/// The point of a plan to start from.
pub(crate) fn stand_at<E: std::error::Error + 'static>(
    problem: &Problem<'_>,
    space: &Space<'_>,
    plan: &Plan,
) -> Result<Stand, RefineError<E>> {
    let places = space.places(plan)?;
    if !space.admits(&places) {
        let limit = space.limit();
        let used_bits = places.iter().enumerate().map(|(group, &place)| space.size(group, place)).sum();
        let constraints = problem.constraints();
        return Err(RefineError::NotAdmitted { used_bits, limit_bits: limit.bits, constraints });
    }
    Ok(Stand::new(places))
}
