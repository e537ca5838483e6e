//! The bits of every module at a glance.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use gamma_core::{BitWidth, Choice, Plan};

/// The narrowest and the widest of some bit-widths.
type Range = (BitWidth, BitWidth);

/// The bit-widths of `plan`: one row per role, one column per block, `·` where a block has no such
/// module. All experts of a block share a row for each of their roles, which says the narrowest and
/// the widest, such as `2-4`.
#[must_use]
pub fn grid(plan: &Plan) -> String {
    let mut roles: Vec<String> = Vec::new();
    let mut blocks = BTreeSet::new();
    let mut cells: BTreeMap<(String, usize), Range> = BTreeMap::new();
    for choice in plan.choices() {
        let (role, block, bits) = (role(choice), choice.name.block().unwrap_or(0), choice.format.bits());
        if !roles.contains(&role) {
            roles.push(role.clone());
        }
        blocks.insert(block);
        let cell = cells.entry((role, block)).or_insert((bits, bits));
        *cell = (cell.0.min(bits), cell.1.max(bits));
    }
    let text = |&(low, high): &Range| if low == high { low.to_string() } else { format!("{low}-{high}") };
    let label = roles.iter().map(String::len).max().unwrap_or(0).max("block".len());
    let digits = blocks.last().map_or(1, |last| last.to_string().len());
    let width = cells.values().map(|range| text(range).len()).max().unwrap_or(0).max(digits);
    let mut lines = format!("{:label$} ", "block");
    for block in &blocks {
        _ = write!(lines, " {block:>width$}");
    }
    for role in roles {
        _ = write!(lines, "\n{role:label$} ");
        for block in &blocks {
            let bits = cells.get(&(role.clone(), *block)).map(text);
            _ = write!(lines, " {:>width$}", bits.as_deref().unwrap_or("·"));
        }
    }
    lines.push('\n');
    lines
}

/// The role of a module; modules of experts are told from those of a layer that every token takes.
fn role(choice: &Choice) -> String {
    let role = choice.name.role();
    if choice.name.expert().is_some() { format!("experts.{role}") } else { role.to_owned() }
}

#[cfg(test)]
mod tests {
    use gamma_core::{Format, GroupSize, ModuleName, ModuleScores, ScoreTable, ScoredOption};

    use super::*;

    fn plan(modules: &[(&str, BitWidth)]) -> Plan {
        let module = |&(name, bits): &(&str, BitWidth)| {
            let format = Format::symmetric(bits, GroupSize::G128);
            let options = vec![ScoredOption::new(format, 8, 0.0)];
            ModuleScores { name: ModuleName::new(name), shape: [1, 1], options }
        };
        let table = ScoreTable::new(modules.iter().map(module).collect()).unwrap();
        Plan::from_picks(&table, &vec![0; modules.len()], None).unwrap()
    }

    #[test]
    fn every_module_stands_at_its_block_and_role() {
        let plan = plan(&[
            ("layers.0.q_proj", BitWidth::B2),
            ("layers.0.down_proj", BitWidth::B8),
            ("layers.10.q_proj", BitWidth::B4),
        ]);
        let expected = "block       0 10\nq_proj      2  4\ndown_proj   8  ·\n";
        assert_eq!(grid(&plan), expected);
    }

    #[test]
    fn experts_of_a_block_share_a_row_of_their_narrowest_and_widest() {
        let plan = plan(&[
            ("layers.0.mlp.up_proj", BitWidth::B4),
            ("layers.1.mlp.experts.0.up_proj", BitWidth::B3),
            ("layers.1.mlp.experts.1.up_proj", BitWidth::B2),
            ("layers.1.mlp.experts.2.up_proj", BitWidth::B6),
            ("layers.2.mlp.experts.0.up_proj", BitWidth::B2),
            ("layers.2.mlp.experts.1.up_proj", BitWidth::B2),
        ]);
        let expected = "\
            block                0   1   2\n\
            up_proj              4   ·   ·\n\
            experts.up_proj      ·   2-6   2\n";
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeezed(&grid(&plan)), squeezed(expected));
        let lines: Vec<usize> = grid(&plan).lines().map(|line| line.chars().count()).collect();
        assert!(lines.iter().all(|length| *length == lines[0]), "columns are aligned: {lines:?}");
    }
}
