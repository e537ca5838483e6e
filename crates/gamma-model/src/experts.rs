//! The router of a block with experts: which of them each token goes to, and what each contributes.

use burn::tensor::{Int, Tensor, TensorData, activation::softmax};

use crate::{ModelError, config::Experts};

/// Sends each token to a few experts. Its weights stay in full precision: rounding them would send
/// tokens elsewhere, which no expert's error measures.
#[derive(Clone, Debug)]
pub(crate) struct Router {
    weight: Tensor<2>, // [experts, hidden_size]
    per_token: usize,
    normalized: bool,
}

/// Gives the matrix of a name and a shape.
type Matrix<'a> = &'a dyn Fn(&str, [usize; 2]) -> Result<Tensor<2>, ModelError>;

/// Where the tokens of a batch go.
struct Routes {
    /// The tokens of each expert, in rising order.
    tokens: Vec<Vec<i32>>,
    /// Where the outputs for a token stand when those of all experts are put one after the other:
    /// `per_token` rows for each token.
    rows: Vec<i32>,
    /// 1 where a token goes to an expert, else 0: `[tokens, experts]`.
    chosen: Vec<f32>,
}

impl Router {
    /// The router of block `number`; `read` gives the matrix of a name and a shape.
    pub(crate) fn load(
        experts: &Experts,
        hidden_size: usize,
        number: usize,
        read: Matrix<'_>,
    ) -> Result<Self, ModelError> {
        let name = format!("model.layers.{number}.{}.gate.weight", experts.names.parent);
        Ok(Self {
            weight: read(&name, [experts.count, hidden_size])?,
            per_token: experts.per_token,
            normalized: experts.normalized,
        })
    }

    /// For each token of `x`, `[batch, tokens, hidden_size]`, the sum of what its experts answer,
    /// weighted by their shares. `expert` is called with the number of each expert that has tokens, in
    /// rising order, and these tokens: `[1, tokens of this expert, hidden_size]`.
    ///
    /// Differentiable in `x`, through the shares as well, and in what `expert` answers; which experts
    /// are chosen is not.
    pub(crate) fn mix(
        &self,
        x: &Tensor<3>,
        expert: &mut dyn FnMut(usize, Tensor<3>) -> Tensor<3>,
    ) -> Tensor<3> {
        let [batch, tokens, width] = x.dims();
        let [experts, _] = self.weight.dims();
        let n = batch * tokens;
        let x = x.clone().reshape([n, width]);
        let shares = softmax(x.clone().matmul(self.weight.clone().transpose()), 1); // [n, experts]
        let device = self.weight.device();
        let indices = |rows: &[i32]| Tensor::<1, Int>::from_data(TensorData::from(rows), &device);
        let routes = self.choose(&shares);
        let chosen = Tensor::<2>::from_data(TensorData::new(routes.chosen, [n, experts]), &device);
        let mut shares = shares * chosen;
        if self.normalized {
            shares = shares.clone() / shares.sum_dim(1);
        }
        let mut answers = Vec::with_capacity(experts);
        for (number, own) in routes.tokens.iter().enumerate().filter(|(_, own)| !own.is_empty()) {
            let at = indices(own);
            let answer = expert(number, x.clone().select(0, at.clone()).unsqueeze());
            let share = shares.clone().select(0, at).narrow(1, number, 1); // [tokens of this expert, 1]
            answers.push(answer.squeeze_dim::<2>(0) * share);
        }
        // Every token has the same number of rows among the answers: gathering them needs no
        // additions whose order could differ.
        let gathered = Tensor::cat(answers, 0).select(0, indices(&routes.rows));
        gathered.reshape([n, self.per_token, width]).sum_dim(1).reshape([batch, tokens, width])
    }

    /// The experts with the largest shares; of equal ones the first.
    #[expect(clippy::cast_possible_wrap, reason = "a batch has fewer than 2^31 rows: devices index with i32")]
    fn choose(&self, shares: &Tensor<2>) -> Routes {
        let [n, experts] = shares.dims();
        let data = shares.clone().into_data_as::<f32>();
        let shares = data.as_slice::<f32>().expect("converted to f32");
        let mut routes =
            Routes { tokens: vec![Vec::new(); experts], rows: Vec::new(), chosen: vec![0.0; n * experts] };
        let mut picks = Vec::with_capacity(n * self.per_token); // experts, and places among their tokens
        for (token, row) in shares.chunks_exact(experts).enumerate() {
            let mut order: Vec<usize> = (0..experts).collect();
            order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
            for &expert in &order[..self.per_token] {
                picks.push((expert, routes.tokens[expert].len() as i32));
                routes.tokens[expert].push(token as i32);
                routes.chosen[token * experts + expert] = 1.0;
            }
        }
        let mut first = 0;
        let starts: Vec<i32> = routes
            .tokens
            .iter()
            .map(|own| {
                let start = first;
                first += own.len() as i32;
                start
            })
            .collect();
        routes.rows = picks.into_iter().map(|(expert, place)| starts[expert] + place).collect();
        routes
    }
}
