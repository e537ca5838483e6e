//! The bits of every module at a glance.

use std::{collections::BTreeSet, fmt::Write as _};

use gamma_core::{Choice, Plan};

/// The bit-widths of `plan`: one row per role, one column per block, `·` where a block has no such
/// module.
#[must_use]
pub fn grid(plan: &Plan) -> String {
    let mut roles: Vec<&str> = Vec::new();
    let mut blocks = BTreeSet::new();
    for choice in plan.choices() {
        if !roles.contains(&choice.name.role()) {
            roles.push(choice.name.role());
        }
        blocks.insert(choice.name.block().unwrap_or(0));
    }
    let label = roles.iter().map(|role| role.len()).max().unwrap_or(0).max("block".len());
    let digits = blocks.last().map_or(1, |last| last.to_string().len());
    let mut text = format!("{:label$} ", "block");
    for block in &blocks {
        _ = write!(text, " {block:>digits$}");
    }
    for role in roles {
        _ = write!(text, "\n{role:label$} ");
        for block in &blocks {
            let here = |c: &&Choice| c.name.role() == role && c.name.block().unwrap_or(0) == *block;
            let bits = plan.choices().iter().find(here).map(|choice| choice.format.bits().to_string());
            _ = write!(text, " {:>digits$}", bits.as_deref().unwrap_or("·"));
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use gamma_core::{BitWidth, Format, GroupSize, ModuleName, ModuleScores, ScoreTable, ScoredOption};

    use super::*;

    #[test]
    fn every_module_stands_at_its_block_and_role() {
        let module = |name: &str, bits| {
            let format = Format::symmetric(bits, GroupSize::G128);
            let options = vec![ScoredOption::new(format, 8, 0.0)];
            ModuleScores { name: ModuleName::new(name), shape: [1, 1], options }
        };
        let table = ScoreTable::new(vec![
            module("layers.0.q_proj", BitWidth::B2),
            module("layers.0.down_proj", BitWidth::B8),
            module("layers.10.q_proj", BitWidth::B4),
        ])
        .unwrap();
        let plan = Plan::from_picks(&table, &[0, 0, 0], None).unwrap();
        let expected = "block       0 10\nq_proj      2  4\ndown_proj   8  ·\n";
        assert_eq!(grid(&plan), expected);
    }
}
