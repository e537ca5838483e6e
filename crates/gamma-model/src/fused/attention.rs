//! Causal attention with grouped queries and rotary positions, a block of queries at a time.
//!
//! Scores exist for one block of queries only, and only for keys that it sees; the way back computes them
//! again (Dao et al. 2022). So nothing is kept but the inputs, and of the products with
//! keys that come later none is computed.

use std::sync::Arc;

use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};
use rayon::prelude::*;

use super::{Fused, lanes};

/// Queries that are scored at a time.
const BLOCK: usize = 64;

/// The heads of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    /// Channels of each.
    pub(crate) width: usize,
}

/// What every token gathers from those before it and itself, of `[q, k, v]`: `[batch, tokens, queries *
/// width]`, and with `keys` heads twice. Queries and keys are rotated here.
#[derive(Clone, Debug)]
pub(crate) struct Attend {
    pub(crate) heads: Heads,
    pub(crate) tokens: usize,
    /// How many tokens a token sees, itself included.
    pub(crate) window: usize,
    /// Cosine and sine of every angle, `[tokens or more, width / 2]`.
    pub(crate) turns: Arc<[Vec<f32>; 2]>,
}

impl Fused<3> for Attend {
    fn forward(&self, inputs: [&[f32]; 3]) -> Vec<f32> {
        let groups = self.each_group(inputs, |group| {
            let mut output = vec![0.0; self.tokens * group.queries.len() * self.heads.width];
            let mut scores = Vec::new();
            for head in 0..group.queries.len() {
                for block in self.blocks() {
                    self.choose(group.queries[head].as_slice(), &group.keys, &block, &mut scores);
                    let mut gathered = vec![0.0; block.rows() * self.heads.width];
                    let seen = self.rows(&group.values, block.from..block.end);
                    product(&mut gathered, Accum::Replace, square(&scores, &block), seen);
                    for (row, gathered) in (block.start..).zip(gathered.chunks_exact(self.heads.width)) {
                        let at = (row * group.queries.len() + head) * self.heads.width;
                        output[at..at + self.heads.width].copy_from_slice(gathered);
                    }
                }
            }
            output
        });
        self.joined(inputs[0].len(), groups.iter().map(Vec::as_slice))
    }

    /// With `P` the softmax of the scores and `A` what arrives: `∂V = Pᵀ A`, `∂S = P ∘ (A Vᵀ - rowsum(P ∘ A Vᵀ))`,
    /// `∂Q = ∂S K`, `∂K = ∂Sᵀ Q`.
    fn backward(&self, inputs: [&[f32]; 3], gradient: &[f32]) -> [Vec<f32>; 3] {
        let width = self.heads.width;
        let groups = self.each_group(inputs, |group| {
            let shared = group.queries.len();
            let mut to_queries = vec![0.0; self.tokens * shared * width];
            let mut to_keys = vec![0.0; self.tokens * width];
            let mut to_values = vec![0.0; self.tokens * width];
            let (mut scores, mut slopes) = (Vec::new(), Vec::new());
            let columns = (group.number * shared * width, self.heads.queries * width);
            let arriving = &gradient[group.sequence * self.tokens * columns.1..];
            for head in 0..shared {
                let queries = &group.queries[head];
                for block in self.blocks() {
                    let (rows, keys) = (block.start..block.end, block.from..block.end);
                    self.choose(queries, &group.keys, &block, &mut scores);
                    let mut asked = Vec::with_capacity(block.rows() * width);
                    for row in rows.clone() {
                        let at = row * columns.1 + columns.0 + head * width;
                        asked.extend_from_slice(&arriving[at..at + width]);
                    }
                    let asked = MatRef::from_row_major_slice(&asked, block.rows(), width);
                    let chosen = square(&scores, &block);
                    slopes.resize(scores.len(), 0.0);
                    let values = self.rows(&group.values, keys.clone());
                    product(&mut slopes, Accum::Replace, asked, values.transpose());
                    product(self.part(&mut to_values, &block), Accum::Add, chosen.transpose(), asked);
                    turn_back(&scores, &mut slopes, block.columns());
                    let slopes = square(&slopes, &block);
                    let own = self.rows(queries, rows.clone());
                    product(self.part(&mut to_keys, &block), Accum::Add, slopes.transpose(), own);
                    let mut found = vec![0.0; block.rows() * width];
                    product(&mut found, Accum::Replace, slopes, self.rows(&group.keys, keys));
                    let scale = self.scale();
                    for (row, found) in rows.zip(found.chunks_exact_mut(width)) {
                        self.rotate(found, row, true);
                        let at = (row * shared + head) * width;
                        let to = to_queries[at..at + width].iter_mut();
                        to.zip(&*found).for_each(|(to, found)| *to = found * scale);
                    }
                }
            }
            for (row, to_key) in to_keys.chunks_exact_mut(width).enumerate() {
                self.rotate(to_key, row, true);
            }
            [to_queries, to_keys, to_values]
        });
        [0, 1, 2]
            .map(|input| self.joined(inputs[input].len(), groups.iter().map(|group| group[input].as_slice())))
    }
}

/// The heads that share a key head, of one sequence.
struct Group {
    sequence: usize,
    /// Number of the key head.
    number: usize,
    /// Rotated and divided by the root of the width, head by head, each `[tokens, width]`.
    queries: Vec<Vec<f32>>,
    /// Rotated, `[tokens, width]`.
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// The queries `start..end` and the keys `from..end` that they see.
struct Block {
    start: usize,
    end: usize,
    from: usize,
}

impl Block {
    fn rows(&self) -> usize {
        self.end - self.start
    }

    fn columns(&self) -> usize {
        self.end - self.from
    }
}

impl Attend {
    /// What `work` makes of every group, sequence by sequence.
    fn each_group<T: Send>(&self, [q, k, v]: [&[f32]; 3], work: impl Fn(Group) -> T + Sync) -> Vec<T> {
        let Heads { queries, keys, width } = self.heads;
        let (shared, scale) = (queries / keys, self.scale());
        let head = |x: &[f32], heads: usize, sequence: usize, number: usize| {
            let mut own = Vec::with_capacity(self.tokens * width);
            for row in 0..self.tokens {
                let at = ((sequence * self.tokens + row) * heads + number) * width;
                own.extend_from_slice(&x[at..at + width]);
            }
            own
        };
        let rotated = |mut x: Vec<f32>| {
            x.chunks_exact_mut(width).enumerate().for_each(|(row, x)| self.rotate(x, row, false));
            x
        };
        let group = |unit: usize| {
            let (sequence, number) = (unit / keys, unit % keys);
            let queries = (number * shared..(number + 1) * shared).map(|query| {
                let mut own = rotated(head(q, queries, sequence, query));
                for x in &mut own {
                    *x *= scale;
                }
                own
            });
            work(Group {
                sequence,
                number,
                queries: queries.collect(),
                keys: rotated(head(k, keys, sequence, number)),
                values: head(v, keys, sequence, number),
            })
        };
        let units = k.len() / (self.tokens * width).max(1);
        (0..units).into_par_iter().map(group).collect()
    }

    /// A tensor of `length` entries from the columns of all groups, which come sequence by sequence.
    fn joined<'a>(&self, length: usize, groups: impl Iterator<Item = &'a [f32]>) -> Vec<f32> {
        let (mut output, keys) = (vec![0.0; length], self.heads.keys);
        for (unit, group) in groups.enumerate() {
            let (sequence, number) = (unit / keys, unit % keys);
            let width = group.len() / self.tokens;
            let rows = output[sequence * group.len() * keys..].chunks_exact_mut(width * keys);
            for (row, own) in rows.zip(group.chunks_exact(width)) {
                row[number * width..(number + 1) * width].copy_from_slice(own);
            }
        }
        output
    }

    fn blocks(&self) -> impl Iterator<Item = Block> + use<> {
        let (tokens, window) = (self.tokens, self.window);
        (0..tokens).step_by(BLOCK).map(move |start| Block {
            start,
            end: tokens.min(start + BLOCK),
            from: (start + 1).saturating_sub(window),
        })
    }

    /// How much each query of a block takes of each key, row by row: 0 of what it does not see.
    fn choose(&self, queries: &[f32], keys: &[f32], block: &Block, shares: &mut Vec<f32>) {
        shares.resize(block.rows() * block.columns(), 0.0);
        let own = self.rows(queries, block.start..block.end);
        product(shares, Accum::Replace, own, self.rows(keys, block.from..block.end).transpose());
        for (row, shares) in (block.start..).zip(shares.chunks_exact_mut(block.columns())) {
            let first = (row + 1).saturating_sub(self.window).max(block.from) - block.from;
            let (before, rest) = shares.split_at_mut(first);
            let (seen, after) = rest.split_at_mut(row + 1 - block.from - first);
            before.fill(0.0);
            after.fill(0.0);
            softmax(seen);
        }
    }

    /// Rotates a head of the token `row` (the layout of Hugging Face checkpoints: channel `i` of the
    /// first half with channel `i` of the second), or turns it back.
    fn rotate(&self, x: &mut [f32], row: usize, back: bool) {
        let half = self.heads.width / 2;
        let [cos, sin] = [0, 1].map(|i| &self.turns[i][row * half..(row + 1) * half]);
        let (first, second) = x.split_at_mut(half);
        for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
            let sin = if back { -sin } else { *sin };
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.heads.width as f32).sqrt()
    }

    /// Some rows of `[tokens, width]`.
    fn rows<'a>(&self, x: &'a [f32], rows: std::ops::Range<usize>) -> MatRef<'a, f32> {
        let (width, count) = (self.heads.width, rows.len());
        MatRef::from_row_major_slice(&x[rows.start * width..rows.end * width], count, width)
    }

    /// The rows of `[tokens, width]` that a block sees.
    fn part<'a>(&self, x: &'a mut [f32], block: &Block) -> &'a mut [f32] {
        &mut x[block.from * self.heads.width..block.end * self.heads.width]
    }
}

/// The scores of a block.
fn square<'a>(x: &'a [f32], block: &Block) -> MatRef<'a, f32> {
    MatRef::from_row_major_slice(x, block.rows(), block.columns())
}

/// `target = a b`, or what is there already and that.
fn product(target: &mut [f32], accum: Accum, a: MatRef<'_, f32>, b: MatRef<'_, f32>) {
    let target = MatMut::from_row_major_slice_mut(target, a.nrows(), b.ncols());
    matmul(target, accum, a, b, 1.0, Par::Seq);
}

lanes::wide! {
    fn softmax(x: &mut [f32]) {
        let highest = lanes::highest(x);
        for x in x.iter_mut() {
            *x = lanes::exp(*x - highest);
        }
        let total = 1.0 / lanes::sum(x, x, |x, _| x);
        for x in x.iter_mut() {
            *x *= total;
        }
    }
}

lanes::wide! {
    /// From shares and the gradient in them to that in the scores, row by row.
    fn turn_back(shares: &[f32], slopes: &mut [f32], columns: usize) {
        for (shares, slopes) in shares.chunks_exact(columns).zip(slopes.chunks_exact_mut(columns)) {
            let mean = lanes::sum(shares, slopes, |share, slope| share * slope);
            slopes.iter_mut().zip(shares).for_each(|(slope, share)| *slope = share * (*slope - mean));
        }
    }
}
