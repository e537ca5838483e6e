"""GPTQ as published (arXiv 2210.17323), for golden values and as the measure of speed.

One loop over blocks of columns in float32, as in the authors' `fasterquant`: damping by the
mean diagonal, dead channels, act-order and static groups included. It differs in one point:
scales are rounded to 16 bits, because that is how they are stored.
"""

import torch


class Quantizer:
    """The min-max grid of one group of columns, per row."""

    def __init__(self, bits, symmetric):
        self.top = 2**bits - 1
        self.symmetric = symmetric

    def find_params(self, x):
        """x: [rows, columns]."""
        zeros = torch.zeros(x.shape[0])
        low = torch.minimum(x.min(1)[0], zeros)
        high = torch.maximum(x.max(1)[0], zeros)
        if self.symmetric:
            high = torch.maximum(low.abs(), high)
            low = -high
        flat = (low == 0) & (high == 0)
        low[flat], high[flat] = -1, 1
        scale = ((high - low) / self.top).half().float()
        self.scale = torch.where(scale == 0, torch.full_like(scale, 2.0**-24), scale)
        if self.symmetric:
            self.zero = torch.full_like(scale, (self.top + 1) / 2)
        else:
            self.zero = torch.round(-low / self.scale).clamp(0, self.top)
        return self

    def quantize(self, w):
        """w: [rows], one column."""
        code = torch.clamp(torch.round(w / self.scale) + self.zero, 0, self.top)
        return self.scale * (code - self.zero)


def factor(h, damping=0.01):
    """Upper Cholesky factor of the inverse of the damped Hessian, which is overwritten."""
    columns = h.shape[0]
    damp = damping * torch.mean(torch.diag(h))
    diagonal = torch.arange(columns)
    h[diagonal, diagonal] += damp
    h = torch.linalg.cholesky(h)
    h = torch.cholesky_inverse(h)
    return torch.linalg.cholesky(h, upper=True)


def prepare(weight, hessian, act_order):
    """Copies of both with dead channels handled, columns in processing order, and that order."""
    w, h = weight.clone(), hessian.clone()
    dead = torch.diag(h) == 0
    h[dead, dead] = 1
    w[:, dead] = 0
    order = torch.argsort(torch.diag(h), descending=True, stable=True) if act_order else None
    return w, h, order


def solve(w, hinv, bits, symmetric, group, order=None, blocksize=128):
    """The decoded weights, in the stored order. w: [rows, columns] in the stored order."""
    columns = w.shape[1]
    quantizer = Quantizer(bits, symmetric)
    if order is not None:  # static groups: the grids of the stored order
        groups = [Quantizer(bits, symmetric).find_params(w[:, i : i + group]) for i in range(0, columns, group)]
        stored, w = order.tolist(), w[:, order]
    else:
        w = w.clone()
    quantized = torch.zeros_like(w)
    for i1 in range(0, columns, blocksize):
        i2 = min(i1 + blocksize, columns)
        w1 = w[:, i1:i2].clone()
        q1, err1 = torch.zeros_like(w1), torch.zeros_like(w1)
        hinv1 = hinv[i1:i2, i1:i2]
        for i in range(i2 - i1):
            column, d = w1[:, i], hinv1[i, i]
            if order is not None:
                quantizer = groups[stored[i1 + i] // group]
            elif (i1 + i) % group == 0:
                quantizer.find_params(w[:, (i1 + i) : (i1 + i + group)])
            q = quantizer.quantize(column)
            q1[:, i] = q
            error = (column - q) / d
            w1[:, i:] -= error.unsqueeze(1).matmul(hinv1[i, i:].unsqueeze(0))
            err1[:, i] = error
        quantized[:, i1:i2] = q1
        w[:, i2:] -= err1.matmul(hinv[i1:i2, i2:])
    if order is not None:
        quantized = quantized[:, torch.argsort(order)]
    return quantized


def gptq(weight, hessian, bits, symmetric, group, act_order, damping=0.01, blocksize=128):
    """Decoded weights, [rows, columns]."""
    w, h, order = prepare(weight, hessian, act_order)
    if order is not None:
        h = h[order][:, order]
    return solve(w, factor(h, damping), bits, symmetric, group, order, blocksize)
