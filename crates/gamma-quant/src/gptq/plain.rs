//! GPTQ as optimal brain surgery defines it: one weight after the other, the inverse Hessian reduced
//! by each, in double precision. What the fast version is tested against.

use gamma_core::{BitWidth, GroupSize, Symmetry};
use ndarray::{Array2, Axis, s};

use crate::grid::{Grid, Range, nearest};

/// The decoded weights, `[out_features, in_features]`. No channel is dead.
pub(super) fn quantize(
    weight: &Array2<f32>,
    hessian: &Array2<f32>,
    (symmetry, group, width): (Symmetry, GroupSize, BitWidth),
    (damping, act_order): (f64, bool),
) -> Array2<f32> {
    let n = weight.ncols();
    let mut h = hessian.mapv(f64::from);
    let added = damping * h.diag().mean().unwrap();
    h.diag_mut().mapv_inplace(|x| x + added);
    let mut order: Vec<usize> = (0..n).collect();
    if act_order {
        order.sort_by(|&a, &b| h[[b, b]].total_cmp(&h[[a, a]]));
    }
    let mut inverse = invert(h);
    let mut w = weight.mapv(f64::from);
    let mut quantized = Array2::zeros(weight.raw_dim());
    let grids = |w: &Array2<f64>, channel: usize| -> Vec<Grid> {
        let first = channel / group.get() * group.get();
        let last = n.min(first + group.get());
        let rows = w.slice(s![.., first..last]).mapv(|x| x as f32);
        let grid = |row: ndarray::ArrayView1<'_, f32>| Grid::over(Range::of(&row.to_vec()), symmetry, width);
        rows.axis_iter(Axis(0)).map(|row| grid(row).unwrap()).collect()
    };
    let original = w.clone();
    let mut current = Vec::new();
    for &channel in &order {
        if act_order {
            current = grids(&original, channel);
        } else if channel % group.get() == 0 {
            current = grids(&w, channel);
        }
        let reduced = inverse.column(channel).to_owned();
        for (row, grid) in current.iter().enumerate() {
            let (scale, zero) = (grid.scale.to_f32(), f32::from(grid.zero));
            let code = nearest(w[[row, channel]] as f32, scale, zero, f32::from(width.max_code()));
            quantized[[row, channel]] = scale * (code - zero);
            let error = (w[[row, channel]] - f64::from(quantized[[row, channel]])) / reduced[channel];
            // Channels already rounded have a zero here, up to rounding, and are not read again.
            w.row_mut(row).scaled_add(-error, &reduced);
        }
        for (k, mut row) in inverse.rows_mut().into_iter().enumerate() {
            row.scaled_add(-reduced[k] / reduced[channel], &reduced);
        }
    }
    quantized
}

/// Gauss-Jordan elimination of a positive definite matrix.
fn invert(mut a: Array2<f64>) -> Array2<f64> {
    let n = a.nrows();
    let mut inverse = Array2::eye(n);
    for pivot in 0..n {
        let scale = 1.0 / a[[pivot, pivot]];
        for matrix in [&mut a, &mut inverse] {
            let by: Vec<f64> = matrix.row(pivot).iter().map(|x| x * scale).collect();
            matrix.row_mut(pivot).assign(&ndarray::aview1(&by));
        }
        let (of_a, of_inverse) = (a.row(pivot).to_owned(), inverse.row(pivot).to_owned());
        for row in (0..n).filter(|&row| row != pivot) {
            let factor = a[[row, pivot]];
            a.row_mut(row).scaled_add(-factor, &of_a);
            inverse.row_mut(row).scaled_add(-factor, &of_inverse);
        }
    }
    inverse
}
