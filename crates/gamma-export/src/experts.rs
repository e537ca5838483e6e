//! Experts, which engines hold stacked: one tensor for all experts of a block.

use gamma_core::Plan;

use crate::ExportError;

/// Refuses a plan with modules of experts for a target that would have to hold them stacked.
pub(crate) fn check_dense(target: &'static str, plan: &Plan) -> Result<(), ExportError> {
    match plan.choices().iter().find(|choice| choice.name.expert().is_some()) {
        None => Ok(()),
        Some(choice) => Err(ExportError::Experts { target, module: choice.name.clone() }),
    }
}
