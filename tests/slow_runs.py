"""Runs for the tests of a cluster: they take their time, leave checkpoints, and count exactly."""

import time


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


def fail(seed, device, ckpt):
    raise ValueError(f"seed {seed} is unlucky")


def full(seed, device, ckpt):
    raise OSError(28, "No space left on device")


def tasks_held(dask_worker=None) -> int:
    return len(dask_worker.state.tasks)
