//! Why a module has its format, as text.

use std::fmt::Write as _;

use gamma_core::Plan;
use gamma_ilp::{Alternative, Explanation};

/// Modules that are named one by one before the rest is only counted.
const SHOWN: usize = 3;

/// `explanation` of a module of `plan` as a table, one row per option, and sentences around it.
#[must_use]
pub fn explanation(explanation: &Explanation, plan: &Plan) -> String {
    let Explanation { module, tied, rules, price, options } = explanation;
    let mut text = String::new();
    let chosen = options.iter().find(|option| option.chosen);
    let format = chosen.map_or_else(String::new, |option| option.format.to_string());
    _ = writeln!(text, "{module} is stored as {format}");
    if !tied.is_empty() {
        let names: Vec<_> = tied.iter().map(ToString::to_string).collect();
        _ = writeln!(text, "tied to {}: sizes and costs are those of all together", names.join(", "));
    }
    for rule in rules {
        _ = writeln!(text, "named by the rule `{rule}`");
    }
    if *price > 0.0 {
        _ = writeln!(
            text,
            "at this budget a KiB more saves a cost of {:.3e} anywhere in the model",
            price * 8192.0
        );
    } else {
        _ = writeln!(text, "the budget is more than enough: a KiB more saves nothing");
    }
    if let Some(sentence) = reason(options, *price) {
        _ = writeln!(text, "{sentence}");
    }
    _ = writeln!(text);
    let mut row = |cells: [&str; 6]| {
        let [mark, format, size, cost, gain, forced] = cells;
        _ = writeln!(text, "{mark:1} {format:20} {size:>10} {cost:>11} {gain:>13}  {forced}");
    };
    row(["", "option", "KiB", "cost", "saved per KiB", "if forced: cost, size, and what gives way"]);
    for option in options {
        row([
            if option.chosen { "*" } else { "" },
            &option.format.to_string(),
            &format!("{:.1}", option.bits as f64 / 8192.0),
            &format!("{:.4e}", option.cost),
            &option.gain_per_bit.map_or_else(|| "–".to_owned(), |gain| format!("{:.3e}", gain * 8192.0)),
            &forced(option, plan.cost()),
        ]);
    }
    text
}

/// Why the chosen option is neither wider nor narrower.
fn reason(options: &[Alternative], price: f64) -> Option<String> {
    let at = options.iter().position(|option| option.chosen)?;
    let gain = |option: &Alternative| option.gain_per_bit;
    let last = gain(&options[at]);
    let next = options.get(at + 1);
    let compare = |gain: f64| if gain >= price { "above" } else { "below" };
    let held = at > 0 && options[..at].iter().all(|narrower| narrower.forced.is_none());
    let narrower = last.map(|gain| {
        let rule = if held { ", but no narrower option is permitted" } else { "" };
        format!("its last step saves {:.3e} per KiB, {} that price{rule}", gain * 8192.0, compare(gain))
    });
    let wider = match next {
        Some(next) if next.forced.is_none() => Some("a wider option is not permitted".to_owned()),
        Some(next) => gain(next)
            .map(|gain| format!("the next one would save {:.3e}, {} it", gain * 8192.0, compare(gain))),
        None => Some("there is no wider option".to_owned()),
    };
    let parts: Vec<String> = narrower.into_iter().chain(wider).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn forced(option: &Alternative, plan_cost: f64) -> String {
    if option.chosen {
        return "as it is".to_owned();
    }
    let Some(forced) = &option.forced else {
        return "not permitted by the rules or the budget".to_owned();
    };
    let percent =
        if plan_cost > 0.0 { format!(" ({:+.2} %)", forced.cost * 100.0 / plan_cost) } else { String::new() };
    let size = forced.bits as f64 / 8192.0;
    let mut text = format!("{:+.3e}{percent}, {size:+.1} KiB", forced.cost);
    match forced.moves.as_slice() {
        [] => text.push_str("; nothing else changes"),
        moves => {
            let named = moves
                .iter()
                .take(SHOWN)
                .map(|(module, from, to)| format!("{module} {} to {}", from.bits(), to.bits()));
            _ = write!(text, "; {}", named.collect::<Vec<_>>().join(", "));
            if moves.len() > SHOWN {
                _ = write!(text, " and {} more", moves.len() - SHOWN);
            }
        }
    }
    text
}
