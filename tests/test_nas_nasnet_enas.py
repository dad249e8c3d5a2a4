"The document on NAS, NASNet and ENAS: what its runs compute, by hand."

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from nas_nb.asng import Space
from nas_nb.claims import interval
from nas_nb.controllers import Reinforce
from nas_nb.papers import children_figures as ends
from nas_nb.papers import controller_figures as figures
from nas_nb.papers import controller_verdicts as verdicts
from nas_nb.papers.controller_claims import CLAIMS
from nas_nb.papers.nas_nasnet_enas import PROFILES
from nas_nb.papers.nasnet_runs import (
    ARMS,
    OTHERS,
    NoBaseline,
    all_searches,
    all_variances,
    best_of,
    drop_run,
    known,
    percentiles,
    public_record,
    repeated,
    search_run,
    tied_rows,
    transfer_run,
    variance_run,
)
from nas_nb.study import Study


def test_the_best_of_n_draws_is_that_of_all_ways_to_draw():
    told, true = np.array([3.0, 1.0, 2.0]), np.array([10.0, 20.0, 40.0])
    ways = [true[max(draw, key=lambda k: told[k])] for draw in itertools.product(range(3), repeat=2)]
    assert best_of(told, true, 2) == pytest.approx(np.mean(ways))


@pytest.mark.parametrize("cell, count", [(1, 3), (2, 9), (4, 81), (8, 6561)])
def test_networks_that_repeat_a_cell(cell, count):
    rows = repeated(8, 3, cell)
    digits = np.stack(np.unravel_index(rows, (3,) * 8), 1)
    assert len(set(rows.tolist())) == count
    assert (digits[:, :cell] == digits[:, -cell:]).all()


def test_percentiles_count_equal_ones_half():
    assert percentiles(np.array([1.0, 1.0])).tolist() == [0.5, 0.5]


def test_without_baseline_is_reinforce_whose_baseline_is_zero():
    one, two = (rule(Space([3, 2]), 0, lr=0.01) for rule in (Reinforce, NoBaseline))
    one.updates = two.updates = 1  # the moving average is 0 and not the first mean
    draws = one.ask(5), two.ask(5)
    rewards = torch.tensor([0.1, 0.9, 0.5, 0.3, 0.7])
    one.tell(draws[0], -rewards), two.tell(draws[1], -rewards)
    assert torch.equal(one.flat, two.flat)


def test_searches_side_by_side_are_those_by_themselves():
    size = dict(table="digits", rule="REINFORCE", lr=0.01, budget=60, every=20)
    both, second = search_run(searches=2, seed=5, **size), search_run(searches=1, seed=6, **size)
    assert [row.split()[1] for row in both["regret"].values()] == list(second["regret"].values())


def test_regret_never_rises_by_chance_alone_and_reward_is_that_of_the_last():
    found = search_run("digits", "random", 0.0, 100, 20, 3)
    _, told, true = known("digits")
    rewards = np.array([row.split() for row in found["reward"].values()], float) / 100
    assert rewards.shape == (5, 3) and abs(rewards.mean() - told.mean()) < 5
    assert all(int(x) >= 0 for row in found["regret"].values() for x in row.split())


def test_the_baseline_lowers_the_variance_where_all_rewards_are_alike():
    with_b, without = variance_run("digits", 1e-3, [0], 16)["variance"]["0"]
    assert 0 < with_b < without


def test_arms_of_a_seed_begin_alike_and_repeat():
    size = dict(images=50, filters=2, steps=2, batch=25, lr=0.05, rate=0.4, seed=3)
    first = drop_run("none", **size)
    assert first == drop_run("none", **size) and set(first) == {"losses", "error"}
    assert drop_run("constant", **size)["losses"] != first["losses"]
    assert list(ARMS)[0] == "none"


def test_costs_are_the_articles():
    gpus, days = figures.times("NAS", "NASNet-A")
    assert (round(gpus, 1), days) == (11.2, 7)
    assert [round(figures.times("NAS", f"ENAS {k}")[0]) for k in ("macro", "micro")] == [70_000, 49_778]
    table = figures.cost_table().set_index("system")
    assert table.loc["NAS", "days"] == 22_400 and not table.index.duplicated().any()


def test_every_claim_is_decided_by_something():
    for id, claim in CLAIMS.items():
        assert claim["criterion"] and ("rule" in claim) == ("smallest" in claim), id
    assert set(PROFILES) == {"paper", "cpu", "quick", "smoke"}


def test_errors_are_paired_by_the_seeds_that_both_ways_have():
    shared = [dict(result=dict(trained=[0.5, 0.7], seconds=dict(search=2.0))) for _ in range(3)]
    scratch = [dict(result=dict(trained=10, seconds=3.0))] * 2
    final = lambda *values: [dict(result=dict(accuracy=[v])) for v in values]
    df = ends.errors_table(shared, final(0.6, 0.7, 0.8), scratch, final(0.9, 0.9))
    assert ends.by_way(df, "shared", "scratch") == pytest.approx([-30, -20])
    assert ends.by_way(df, "shared", "drawn") == pytest.approx([0, 10, 20])
    alike = pd.DataFrame(dict(space="macro", inherited=[1.0, 2.0, 3.0], trained=[5.0, 6.0, 7.0]))
    told = ends.told_errors(df, alike)
    assert (
        told.startswith("Errors (n = 3): ")
        and "15 times" in told
        and told.endswith("; shared weights rank networks (τ = 1.00)")
    )
    against = alike.assign(trained=[7.0, 6.0, 5.0])
    assert ends.told_errors(df, against).endswith("are not seen to rank networks (τ = -1.00)")


def test_what_is_missed_is_that_of_the_last_look_within_the_seconds():
    looked = {"REINFORCE": dict(result=dict(regret={"10": "300 500", "20": "100 200"}))}
    df = ends.equal_table(looked, [], 2.0)
    for seconds, missed in ((5, [3, 5]), (20, [3, 5]), (20.1, [1, 2]), (40, [1, 2]), (1e3, [1, 2])):
        assert ends.at_seconds(df, "REINFORCE", seconds).tolist() == missed


def test_the_best_cell_misses_nothing():
    scores = known("digits")[2]
    best = np.unravel_index(scores.argmax(), (4,) * 6)
    assert ends.missed(best) == 0 and ends.missed((0,) * 6) == pytest.approx(scores.max() - scores[0])


def test_cpu_redraws_where_the_public_tables_are_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("NAS_NB_DATA", str(tmp_path))
    study = Study("54_nas_nasnet_enas", PROFILES, "cpu", 0, "cpu", "", threads=1, claims=CLAIMS)
    assert len(all_variances(study)) == 12 and len(all_searches(study)) == 20
    record = public_record(study, transfer_run, "nasbench201")
    assert {b for others in record["result"]["public"].values() for b in others} == {*OTHERS}


def test_layers_are_tied_in_every_way():
    ways = tied_rows(8, 3)
    groups = set()
    for rows in ways:
        digits = np.stack(np.unravel_index(rows, (3,) * 8), 1)
        alike = [tuple(n for n in range(8) if (digits[:, n] == digits[:, first]).all()) for first in range(8)]
        assert {len(group) for group in alike} == {4} and len(set(rows.tolist())) == 9
        groups.add(frozenset(alike))
    assert len(ways) == len(groups) == 35
    assert sum(set(rows) == set(repeated(8, 3, 2)) for rows in ways) == 1


@pytest.mark.parametrize("trained, tested", [([3, 1, 4, 2], False), ([1, 2, 4, 3], True), ([1] * 4, False)])
def test_what_shared_weights_find_is_judged_only_where_they_rank_networks(trained, tested):
    worth = pd.DataFrame(dict(space="macro", inherited=[10.0, 20.0, 30.0, 40.0], trained=trained))
    ways = [(way, seed, 1.0, 30.0 + seed) for way in ("drawn", "shared", "scratch") for seed in (0, 1)]
    errors = pd.DataFrame(ways, columns=["way", "seed", "seconds", "error"])
    for told in (verdicts.macro(errors, worth), verdicts.sharing(errors, False, worth)):
        assert told.get("tested", True) is tested and told["networks"] == "4"
        assert (told.get("needed") == "shared weights that rank networks") is not tested


def test_the_end_of_searches_is_told_beside_an_early_look():
    rows = [
        (rule, rate, seed, at, 80.0 + lead * (rule == "PPO") * (at == 500) + rate + 0.1 * seed)
        for rule in ("PPO", "REINFORCE")
        for rate, lead in ((0.1, 3.0), (1.0, 2.0))
        for seed in range(6)
        for at in (500, 2000)
    ]
    df = pd.DataFrame(rows, columns=["rule", "rate", "seed", "evaluations", "reward"])
    df.loc[(df["rule"] == "PPO") & (df["seed"] == 5), "reward"] += 0.3
    rates = dict(PPO=0.1, REINFORCE=1.0)
    wide = df[df["rate"] == df["rule"].map(rates)]
    later = wide[wide["seed"] == 4].assign(seed=6, reward=wide["reward"] + 1.0 * (wide["rule"] == "PPO"))
    told = verdicts.ppo_best(df, pd.concat([wide, later]), 500, 2, 2000, 95.0)
    assert (told["rate_ppo"], told["rate"]) == (0.1, 1.0)
    assert told["differences"] == pytest.approx([2.1, 2.1, 2.1, 2.4, 3.1])
    mean, low, high = interval([0, 0, 0, 0.3])
    assert (told["late_mean"], told["late_low"], told["late_high"]) == (
        f"{mean:+.2f}",
        f"{low:+.2f}",
        f"{high:+.2f}",
    )
    assert told["swapped_mean"] == "+2.10"  # the others choose the same rates, and the first two judge
    df.loc[(df["rule"] == "PPO") & (df["seed"] > 1) & (df["rate"] == 1.0), "reward"] += (
        5  # they choose another
    )
    told = verdicts.ppo_best(df, df, 500, 2, 2000, 95.0)
    assert (told["rate_ppo"], told["swapped_mean"]) == (0.1, "+2.00")


def test_where_no_table_is_read_no_number_is_told():
    for missing in (verdicts.transfer(None), verdicts.transfer_digits(None), verdicts.cells(None, None)):
        assert missing["tested"] is False and not any(c.isdigit() for c in missing["ours"])
        assert not missing.keys() - {"ours", "holds", "tested"}


def test_regrets_of_chance_are_told_with_the_rate_that_they_are_of():
    regret = {
        ("PPO", 3.5e-4): 0.1,
        ("REINFORCE", 3.5e-4): 0.5,
        ("REINFORCE", 1e-3): 0.2,
        ("random", 0.01): 0.6,
        ("flipped", 0.01): 0.55,
        ("flipped_ppo", 0.01): 0.75,
    }
    rows = [(*key, seed, 40, x + 0.01 * seed) for key, x in regret.items() for seed in (-1, 0, 1)]
    df = pd.DataFrame(rows, columns=["rule", "rate", "seed", "evaluations", "regret"])
    told = verdicts.learns(df, 40, 0.01)
    assert [told[k] for k in ("own", "least", "flips_ppo", "null_rate")] == ["0.001", "0.20", "0.75", "0.01"]
    assert told["reinforce"] == pytest.approx(0.5) and told["flips"] == pytest.approx(0.55)
    assert (told["rates"], told["poor"]) == (1, 0)
    assert (told["above_rates"], told["above"]) == ("none", "–")
    near = [("PPO", 1e-3, seed, 40, 0.55 + 0.01 * seed) for seed in (-1, 0, 1)]  # a twentieth below chance
    told = verdicts.learns(pd.concat([df, pd.DataFrame(near, columns=df.columns)]), 40, 0.01)
    assert (told["rates"], told["poor"]) == (2, 1)
    worse = [("PPO", 1e-2, seed, 40, 0.7 + 0.01 * seed) for seed in (-1, 0, 1)]
    told = verdicts.learns(pd.concat([df, pd.DataFrame(worse, columns=df.columns)]), 40, 0.01)
    assert (told["poor"], told["above_rates"], told["above"]) == (1, "0.01", "0.70")


def test_the_title_of_costs_holds_all_of_them():
    costs = figures.cost_table()
    told = figures.told_cost(costs)
    least, most = (float(x) for x in told.split("between ")[1].removesuffix(" %").split(" and "))
    assert least <= costs["error"].min() and costs["error"].max() <= most and most - least < 2.2


# -- PPO's lead over time --


def test_the_lead_of_ppo_is_told_with_the_rates_of_one_look_and_of_each():
    reward = {("PPO", 0.1, 1): 9, ("PPO", 0.1, 2): 5, ("PPO", 0.2, 1): 1, ("PPO", 0.2, 2): 6}
    reward |= {("REINFORCE", 0.1, 1): 8, ("REINFORCE", 0.1, 2): 4}
    reward |= {("REINFORCE", 0.2, 1): 2, ("REINFORCE", 0.2, 2): 7}
    df = pd.DataFrame(
        dict(rule=rule, rate=rate, seed=s, evaluations=at, reward=x + 0.1 * s * (rule == "PPO"))
        for (rule, rate, at), x in reward.items()
        for s in range(4)
    )
    lead, each = figures.lead_table(df, 2, 2), figures.lead_table(df, 2)  # two searches choose, two judge
    assert lead["search"].tolist() == [2, 3, 2, 3]
    assert lead["lead"].tolist() == pytest.approx([-0.8, -0.7, -0.8, -0.7])  # at 0.2, which is best after 2
    assert each["lead"].tolist() == pytest.approx([1.2, 1.3, -0.8, -0.7])
    cited = figures.cite_lead(each, lead, 95)
    assert (cited["top_at"], cited["top_n"]) == ("1", "2")
    assert (cited["top_mean"], cited["top_same"], cited["top_own_mean"]) == ("+1.25", "+1.25", "-0.75")
    one = lead[lead["search"] == 2]
    title = figures.told_lead(one, each, 2, 95)
    assert "after 2 evaluations: -0.8 there" in title and "nan" not in title  # one search has no interval
    plt.close(figures.plot_lead(one, each, 2, 95, 1.0, title))
