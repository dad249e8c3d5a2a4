"""Operations that results pass through, each on numbers that are the same everywhere; printed as JSON:
operation → hash.

Run by itself with the variables of `nas_nb.bits.portable_variables("quick")`, natively or under an
emulator. A name is written as the lint in test_bits.py finds it in the package: `.exp` is a method of
tensors, `F.conv2d` a function. Names on the command line are left out.
"""

import json
import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from nas_nb.bits import digest, spread_out

x, positive = spread_out(20011), spread_out(20011, low=1e-3, high=9)
table = spread_out(200, 100)
images = {
    kind: spread_out(8, 16, 14, 14).contiguous(memory_format=kind)
    for kind in (torch.channels_last, torch.contiguous_format)
}
wide, point, depth = (
    spread_out(*s, low=-0.3, high=0.3) for s in ((24, 16, 3, 3), (24, 16, 1, 1), (16, 1, 5, 5))
)


def both(f, x):
    "In float32 and float64."
    return [f(x), f(x.double())]


def layouts(f):
    return [f(i) for i in images.values()]


def convolutions(i):
    same = [F.conv2d(i, wide, padding=1), F.conv2d(i, point), F.conv2d(i, wide, padding=1, stride=2)]
    return same + [F.conv2d(i, depth, padding=p, dilation=p // 2, groups=16) for p in (2, 4)]


def normed(i):
    return F.batch_norm(i, torch.zeros(16), torch.ones(16), training=True)


def gradients(i):
    "Of a small network with all kinds of layers."
    leaves = i, a, b, c = [t.clone().requires_grad_() for t in (i, wide, point, depth)]
    y = normed(F.avg_pool2d(F.conv2d(i, c, padding=2, groups=16).relu(), 3, 1, 1)) + normed(
        F.max_pool2d(i, 3, 1, 1)
    )
    z = F.conv2d(y, a, padding=1) * F.conv2d(y, b).sigmoid()
    F.cross_entropy(z.mean((2, 3)), torch.arange(8), label_smoothing=0.1).backward()
    return [t.grad for t in leaves]


def steps(make):
    "Five steps of an optimiser."
    p = spread_out(999).requires_grad_()
    optimizer = make([p])
    for salt in range(5):
        p.grad = spread_out(999, salt=salt)
        optimizer.step()
    return p


def clipped():
    p = [spread_out(999, salt=s).requires_grad_() for s in (0, 1)]
    for q in p:
        q.grad = q.detach() * 3
    nn.utils.clip_grad_norm_(p, 1.0)
    return [q.grad for q in p]


def drawn(f):
    torch.manual_seed(5)
    return f()


def rng(f):
    return f(np.random.default_rng(5))


angle = spread_out(4, 2, 3, low=-1, high=1)
grid = F.affine_grid(angle, [4, 1, 9, 9], align_corners=False)
OPS = {
    ".exp": lambda: both(torch.exp, x),
    ".log": lambda: torch.log(positive),  # not in float64: MKL's differs between processors
    ".sigmoid": lambda: both(torch.sigmoid, x),
    ".tanh": lambda: both(torch.tanh, x),
    ".addcdiv_": lambda: both(lambda v: v.clone().addcdiv_(v, v * v + 1, value=-0.3), x),
    "F.softplus": lambda: both(F.softplus, x),
    "F.logsigmoid": lambda: both(F.logsigmoid, x),
    "F.binary_cross_entropy_with_logits": lambda: both(
        lambda v: F.binary_cross_entropy_with_logits(v, (v > 0).to(v.dtype), reduction="none"), x
    ),
    ".logit": lambda: torch.logit(positive / 10),
    ".softmax": lambda: [table.softmax(0), table.softmax(1), table.double().softmax(1)],
    ".log_softmax": lambda: [table.log_softmax(0), table.log_softmax(1), table.double().log_softmax(1)],
    ".logsumexp": lambda: both(lambda t: t.logsumexp(1), table),
    ".lgamma": lambda: both(torch.lgamma, positive),
    ".cos": lambda: both(torch.cos, x),
    ".sin": lambda: both(torch.sin, x),
    ".hypot": lambda: both(lambda t: t.hypot(t.flip(0)), x),
    ".rsqrt": lambda: both(torch.rsqrt, positive),
    ".sum": lambda: [x.sum(), table.sum(0), table.sum(1), table.double().sum()],
    ".mean": lambda: [x.mean(), table.mean(0), table.mean(1), *layouts(lambda i: i.mean((2, 3)))],
    ".std": lambda: [table.std(), table.std(1)],
    ".var": lambda: [table.var(), table.var(1)],
    ".cumsum": lambda: [x.cumsum(0), table.cumsum(1)],
    ".prod": lambda: [positive[:30].prod(), table[:, :9].prod(1)],
    ".lerp_": lambda: x.clone().lerp_(positive, 0.001),
    "torch.var_mean": lambda: list(torch.var_mean(spread_out(5, 300, 8), 1, correction=0, keepdim=True)),
    "torch.bmm": lambda: torch.bmm(spread_out(5, 64, 128), spread_out(5, 128, 128)),
    "F.unfold": lambda: F.unfold(spread_out(4, 1, 8, 8), 3, padding=1, stride=2),
    ".baddbmm": lambda: torch.baddbmm(spread_out(5, 30, 11), spread_out(5, 30, 20), spread_out(5, 20, 11)),
    ".topk": lambda: list(table.topk(7)),
    ".backward": lambda: sum(layouts(gradients), []),
    "op Pow": lambda: [x**3, positive**1.7, positive.double() ** 1.7, *(2.0 ** x[:99], 0.9 ** x[:99])],
    "op MatMult": lambda: [
        *both(lambda t: t @ spread_out(70, 33).to(t), spread_out(130, 70)),
        spread_out(130, 70) @ spread_out(70),
        spread_out(9, 70) @ spread_out(70, 3),
    ],
    "torch.special.entr": lambda: both(torch.special.entr, positive),
    "torch.special.xlogy": lambda: both(lambda t: torch.special.xlogy(t, t), positive),
    "torch.rand": lambda: drawn(lambda: torch.rand(1001)),
    "torch.randn": lambda: drawn(lambda: [torch.randn(n) for n in (5, 1001)]),
    ".bernoulli_": lambda: drawn(lambda: [torch.empty(n).bernoulli_(0.7) for n in (5, 1001)]),
    "torch.multinomial": lambda: drawn(lambda: torch.multinomial(positive[:50], 20)),
    "F.conv2d": lambda: sum(layouts(convolutions), []),
    "F.batch_norm": lambda: layouts(normed),
    "F.avg_pool2d": lambda: layouts(lambda i: F.avg_pool2d(i, 3, 1, 1, count_include_pad=False)),
    "F.max_pool2d": lambda: layouts(lambda i: F.max_pool2d(i, 3, 2, 1)),
    "F.cross_entropy": lambda: [
        F.cross_entropy(table, torch.arange(200) % 100, label_smoothing=s) for s in (0.0, 0.1)
    ],
    "F.interpolate": lambda: F.interpolate(
        spread_out(2, 3, 9, 9), size=(16, 16), mode="bilinear", antialias=True
    ),
    "F.affine_grid": lambda: grid,
    "F.grid_sample": lambda: F.grid_sample(spread_out(4, 1, 9, 9), grid, align_corners=False),
    "nn.Linear": lambda: drawn(lambda: [m := nn.Linear(50, 10), m(spread_out(64, 50))][1:]),
    "nn.Conv2d": lambda: drawn(lambda: nn.Conv2d(16, 24, 3).weight),
    "nn.AvgPool2d": lambda: layouts(nn.AvgPool2d(2)),
    "nn.AdaptiveAvgPool2d": lambda: layouts(nn.AdaptiveAvgPool2d(1)),
    "nn.utils.clip_grad_norm_": clipped,
    "nn.utils.get_total_norm": lambda: nn.utils.get_total_norm([x, positive]),
    "torch.linalg.vector_norm": lambda: [torch.linalg.vector_norm(x), torch.linalg.vector_norm(table, dim=1)],
    "torch.optim.Adam": lambda: steps(lambda p: torch.optim.Adam(p, fused=True, weight_decay=1e-3)),
    "torch.optim.SGD": lambda: [
        steps(lambda p: torch.optim.SGD(p, 0.1, 0.9, fused=f, nesterov=n, weight_decay=1e-3))
        for f, n in ((True, True), (False, False))
    ],
    "np.exp": lambda: np.exp(x.double().numpy()),
    "np.log": lambda: np.log(positive.double().numpy()),
    "np.log10": lambda: np.log10(positive.double().numpy()),
    "np.mean": lambda: table.double().numpy().mean(0),
    "np.var": lambda: table.double().numpy().var(1),
    "np.std": lambda: table.double().numpy().std(1),
    "np.nanstd": lambda: np.nanstd(table.double().numpy(), axis=1),
    "np.cumsum": lambda: np.cumsum(x.double().numpy()),
    "np.geomspace": lambda: np.geomspace(1e-4, 1, 41),
    "np.median": lambda: np.median(table.double().numpy(), 1),
    "np.quantile": lambda: np.quantile(x.double().numpy(), (0.025, 0.3, 0.975)),
    "np.random.default_rng": lambda: rng(
        lambda r: np.concatenate([r.random(99), r.normal(size=99), r.choice(50, 30), r.permutation(50)])
    ),
}


def hashes(without=()) -> dict:
    made = {name: f() for name, f in OPS.items() if name not in without}
    return {
        name: " ".join(map(digest, out if isinstance(out, list) else [out])) for name, out in made.items()
    }


if __name__ == "__main__":
    torch.set_num_threads(2)
    print(json.dumps(hashes(sys.argv[1:]), indent=1))
