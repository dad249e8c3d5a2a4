"""Runs for the tests of a cluster: they take their time, leave checkpoints, and count exactly."""

import time

from nas_nb.cluster import cut


def walk(steps, seed, device, ckpt, pause=0.02):
    "A random walk in whole numbers; says from which step this process went on."
    state = ckpt.load() or dict(x=seed + 1, t=0)
    begun = state["t"]
    for t in range(begun, steps):
        state = dict(x=state["x"] * 1103515245 % 2147483647, t=t + 1)
        time.sleep(pause)
        ckpt.tick(lambda: state)
    return dict(x=state["x"], begun=begun)


def walks(runs, steps, device, ckpt):
    "Some walks side by side."
    return [dict(x=(r["seed"] + 1) * steps) for r in runs]


def sums(parts, steps, seed, device, ckpt):
    "Some walks in one run, which a cluster cuts."
    return sums_joined([sums_part(**p, device=device, ckpt=ckpt) for p in sums_parts(parts, steps, seed)])


def sums_parts(parts, steps, seed):
    return [dict(steps=steps, part=seed + i) for i in range(parts)]


def sums_part(steps, part, device, ckpt):
    return walk(steps, part, device, ckpt)


def sums_joined(found, **config):
    return dict(x=[f["x"] for f in found], begun=[f["begun"] for f in found])


cut(sums, sums_parts, sums_part, sums_joined)


def fail(seed, device, ckpt):
    raise ValueError(f"seed {seed} is unlucky")


def full(seed, device, ckpt):
    raise OSError(28, "No space left on device")


def tasks_held(dask_worker=None) -> int:
    return len(dask_worker.state.tasks)
