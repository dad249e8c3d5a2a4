"""TDGA against numbers that were computed independently (tdga_cases.json), and properties that must hold for
any input."""

import itertools
import json
import math
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from nas_nb.tdga import (
    CAPACITY,
    OPTIMUM,
    TDGA,
    SimpleGA,
    constant,
    crossover,
    entropy_feedback,
    free_energy,
    geometric,
    knapsack,
    locus_entropy,
    mutate,
    plot_knapsack,
    random_genes,
    select,
    success,
)

CASES = {c["id"]: c for c in json.loads((Path(__file__).parent / "tdga_cases.json").read_text())["cases"]}
SELECTIONS = [c for c in CASES.values() if c["kind"] == "tdga_selection"]
MORI = CASES["tdga_01_mori_fixture"]
KNAPSACK = CASES["tdga_11_knapsack30"]


def tensor(x):
    return torch.tensor(x, dtype=torch.float64)


def literal_select(energies, genes, n, T, replacement=True):
    "By the definition, in plain Python: the first pool member whose F is the lowest by more than 1e-12."
    chosen = []
    for _ in range(n):
        lowest, best = math.inf, None
        for k in range(len(energies)):
            members = [*chosen, k]
            counts = [Counter(genes[i][m] for i in members).values() for m in range(len(genes[0]))]
            entropy = -sum(c / len(members) * math.log(c / len(members)) for locus in counts for c in locus)
            F = sum(energies[i] for i in members) / len(members) - T * entropy
            if F < lowest - 1e-12 and (replacement or k not in chosen):
                lowest, best = F, k
        chosen.append(best)
    return chosen


# -- the numeric cases --


@pytest.mark.parametrize("case", SELECTIONS, ids=lambda c: c["id"])
def test_selection_cases(case):
    E, G, T, n = (
        tensor(case["energies"]),
        torch.tensor(case["pool"]),
        case["temperature"],
        case["next_population_size"],
    )
    picks = select(E, G, n, T)
    assert picks.tolist() == case["greedy_selected_in_order"]
    assert E[picks].mean().item() == pytest.approx(case["greedy_final_mean_E"], abs=1e-9)
    assert locus_entropy(G[picks]).sum().item() == pytest.approx(case["greedy_final_H"], abs=1e-9)
    F = free_energy(E[picks], G[picks], T).item()
    assert F == pytest.approx(case["greedy_final_F"], abs=1e-9)
    combos = torch.tensor(list(itertools.combinations_with_replacement(range(len(E)), n)))
    all_F = free_energy(E[combos], G[combos], T)
    assert len(combos) == case["exhaustive_candidates_examined"]
    assert all_F.min().item() == pytest.approx(case["exhaustive_optimum_F"], abs=1e-9)
    assert combos[all_F < all_F.min() + 1e-9].tolist() == case["exhaustive_optimal_multisets"]
    assert (F < all_F.min().item() + 1e-9) == case["greedy_is_optimal"]


@pytest.mark.parametrize("case", [c for c in SELECTIONS if "trace" in c], ids=lambda c: c["id"])
def test_free_energy_of_every_candidate_at_every_step(case):
    E, G, chosen = tensor(case["energies"]), torch.tensor(case["pool"]), []
    for step in case["trace"]:
        for k, want in step["free_energy_of_each_candidate"].items():
            members = [*chosen, int(k)]
            assert free_energy(E[members], G[members], case["temperature"]).item() == pytest.approx(
                want, abs=1e-9
            )
        chosen.append(step["chosen"])


def test_shifted_energies_case_02():
    E, G = tensor(MORI["energies"]), torch.tensor(MORI["pool"])
    for shift in (3.5, -3.5, 1e4):
        assert select(E + shift, G, 4, 1.0).tolist() == MORI["greedy_selected_in_order"]


@pytest.mark.parametrize(
    "low, high, want", [(0.0, 0.2, [0, 0]), (0.289, 0.432, [0, 1]), (0.433, 1.0, [0, 2])]
)
def test_switch_temperatures_case_03(low, high, want):
    case = CASES["tdga_03_threshold_low"]
    switches = case["switch_temperatures"].values()
    assert list(switches) == pytest.approx([0.2 / math.log(2), 0.3 / math.log(2)])
    for T in (low, high):
        assert select(tensor(case["energies"]), torch.tensor(case["pool"]), 2, T).tolist() == want
    for T, (before, after) in zip(switches, ([0, 1], [1, 2])):
        second = [
            select(tensor(case["energies"]), torch.tensor(case["pool"]), 2, T * (1 + e)).tolist()[1]
            for e in (-1e-9, 1e-9)
        ]
        assert second == [before, after]


def test_cold_without_replacement_is_truncation_case_05b():
    case = CASES["tdga_05a_T0_with_replacement"]
    assert select(tensor(case["energies"]), torch.tensor(case["pool"]), 3, 0, replacement=False).tolist() == [
        1,
        2,
        0,
    ]


@pytest.mark.parametrize("case", [c for c in SELECTIONS if "alpha" in c], ids=lambda c: c["id"])
def test_real_genes_count_as_their_bits_case_07(case):
    "A search over α selects what `select` selects over the bits, and keeps the real vectors."
    alpha, E = tensor(case["alpha"]), tensor(case["energies"])
    bits = lambda a: (a.sigmoid() > 0.5).long()
    assert bits(alpha).tolist() == case["bits"] == case["pool"]
    search = TDGA(alpha[None, 1:3], E[None, 1:3], case["temperature"], express=bits)
    search.tell(E[None], alpha[None])
    assert torch.equal(search.population[0], alpha[case["greedy_selected_in_order"]])
    assert search.energies[0].tolist() == E[case["greedy_selected_in_order"]].tolist()


def test_entropy_table_case_09():
    for n, k, H in CASES["tdga_09_binary_entropy_table"]["rows_n_k_H"]:
        assert locus_entropy(torch.tensor([[1]] * k + [[0]] * (n - k))).item() == pytest.approx(H, abs=1e-12)
    assert locus_entropy(torch.arange(5)[:, None]).item() == pytest.approx(math.log(5))


def test_geometric_schedule_case_10():
    schedule = geometric(10, 0.1, 100)
    for g, want in CASES["tdga_10_geometric_schedule"]["values"].items():
        assert schedule(int(g), None, None) == pytest.approx(want, rel=1e-12)
    assert schedule(170, None, None) == pytest.approx(0.1)
    assert {geometric(3, 3, 10)(g, None, None) for g in range(11)} == {3}


def test_knapsack_case_11():
    value, weight = torch.tensor(KNAPSACK["items"]).T
    best = torch.zeros(30, dtype=torch.long)
    best[KNAPSACK["optimal_items"]] = 1
    assert (CAPACITY, OPTIMUM) == (KNAPSACK["capacity"], KNAPSACK["optimum_value"])
    assert (best @ weight, knapsack(best)) == (KNAPSACK["optimal_weight"], -OPTIMUM)
    for i in range(30):
        assert -knapsack(torch.eye(30)[i]) == value[i]
        heavier = best.clone()
        heavier[i] = 1
        assert knapsack(heavier) == (0 if best[i] == 0 else -OPTIMUM)
    table = [0] * (CAPACITY + 1)
    for v, w in KNAPSACK["items"]:
        table = table[:w] + [max(a, b + v) for a, b in zip(table[w:], table)]
    assert table[-1] == OPTIMUM


def knapsack_successes(cls, n, Ts=(), runs=30, **kwargs):
    "How many of 30 runs hold the optimum after 100 generations; with Ts a list, one for each temperature."
    first = random_genes(range(runs), n, 30).repeat(max(len(Ts), 1), 1, 1)
    if Ts:
        kwargs["T"] = tensor(Ts).repeat_interleave(runs)
    search = cls(first, knapsack(first), seeds=list(range(runs)) * max(len(Ts), 1), **kwargs)
    for _ in range(100):
        search.tell(knapsack(search.ask()))
    return (search.best_energy == -OPTIMUM).reshape(-1, runs).sum(1).tolist()


def test_success_on_the_knapsack_agrees_with_another_program_case_11():
    """Fisher's exact test against the counts observed with an independent program; and the order of the
    methods."""
    seen = KNAPSACK["observed_success_of_an_independent_numpy_implementation_30_seeds"]
    ours = dict(
        zip(
            ("T0_pm0.02", "T1_pm0.02", "T10_pm0.02", "T100_pm0.02"),
            knapsack_successes(TDGA, 32, [0, 1, 10, 100]),
        )
    )
    ours["T10_pm0.02_noreplace"] = knapsack_successes(TDGA, 32, [10], replacement=False)[0]
    ours["T10_pm0.02_noelite"] = knapsack_successes(TDGA, 32, [10], elite=False)[0]
    ours["T10_pm0.005"] = knapsack_successes(TDGA, 32, [10], mutation=0.005)[0]
    ours["SGA64_tournament3_pm0.02"] = knapsack_successes(SimpleGA, 64)[0]
    ours["SGA64_tournament3_pm0.005"] = knapsack_successes(SimpleGA, 64, mutation=0.005)[0]
    for name, found in ours.items():
        there = seen[name]["optimum_in_final_pop"]
        p = fisher_exact([[there, 30 - there], [found, 30 - found]]).pvalue
        assert p > 0.001, f"{name}: {found} of 30 here, {there} of 30 there"
    assert (
        ours["T10_pm0.02"] > ours["T10_pm0.02_noelite"]
        and ours["T10_pm0.02"] > ours["T1_pm0.02"] > ours["T100_pm0.02"]
    )


def test_how_often_greedy_is_optimal_case_12():
    "Random 9x6 pools, four to choose: observed elsewhere in 300 pools, compared by Fisher's exact test."
    rng = torch.Generator().manual_seed(0)
    E, G = (
        torch.rand(300, 9, dtype=torch.float64, generator=rng),
        torch.randint(2, (300, 9, 6), generator=rng),
    )
    combos = torch.tensor(list(itertools.combinations_with_replacement(range(9), 4)))
    for T, percent in ((0.0, 100), (0.02, 98), (0.1, 90), (0.3, 63), (1.0, 48)):
        picks = select(E, G, 4, T)
        F = free_energy(E.gather(1, picks), G.gather(1, picks[..., None].expand(-1, -1, 6)), T)
        excess = F - free_energy(E[:, combos], G[:, combos], tensor(T)).amin(1)
        assert excess.min() > -1e-9
        ours = int((excess < 1e-9).sum())
        assert fisher_exact([[3 * percent, 300 - 3 * percent], [ours, 300 - ours]]).pvalue > 0.001, (
            T,
            ours / 3,
        )


# -- the selection --


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    alleles=st.integers(2, 5),
    P=st.integers(2, 12),
    M=st.integers(1, 6),
    T=st.sampled_from([0.0, 1e-3, 0.05, 0.3, 2.0, 50.0]),
    replacement=st.booleans(),
    levels=st.sampled_from([2, 5, 10**6]),  # few levels of energy: many ties
)
def test_fast_form_equals_the_literal_one(seed, alleles, P, M, T, replacement, levels):
    rng = torch.Generator().manual_seed(seed)
    E = torch.randint(levels, (P,), generator=rng).double() / levels
    G = 3 * torch.randint(alleles, (P, M), generator=rng) - 4  # neither dense nor positive
    n = max(1, P - 1)
    assert select(E, G, n, T, replacement).tolist() == literal_select(
        E.tolist(), G.tolist(), n, T, replacement
    )


def test_many_populations_at_once_equal_each_alone():
    rng = torch.Generator().manual_seed(1)
    E, G = (
        torch.rand(4, 5, 21, dtype=torch.float64, generator=rng),
        torch.randint(4, (4, 5, 21, 9), generator=rng),
    )
    T = torch.logspace(-3, 1, 20, dtype=torch.float64).reshape(4, 5)
    for replacement in (True, False):
        together = select(E, G, 10, T, replacement)
        assert together.shape == (4, 5, 10)
        for i, j in itertools.product(range(4), range(5)):
            assert together[i, j].tolist() == select(E[i, j], G[i, j], 10, T[i, j], replacement).tolist()
    F = free_energy(E, G, T)
    assert F[2, 3].item() == pytest.approx(free_energy(E[2, 3], G[2, 3], T[2, 3].item()).item())


def test_ties_go_to_the_lowest_index_at_any_scale():
    "Every string several times, and loci in another order: sums differ in their last bits, picks may not."
    rng = torch.Generator().manual_seed(2)
    strings = torch.randint(2, (16, 60), generator=rng)
    energy = torch.rand(16, dtype=torch.float64, generator=rng)
    for scale in (1e-6, 1.0, 1e6):
        for T in (0.003, 0.1):
            one = select(scale * energy, strings, 24, scale * T)
            again = select(scale * energy.repeat(5), strings.repeat(5, 1), 24, scale * T)
            assert again.tolist() == one.tolist()
            order = torch.randperm(60, generator=rng)
            assert (
                select(scale * energy.repeat(5), strings[:, order].repeat(5, 1), 24, scale * T).tolist()
                == one.tolist()
            )
    mirrored = torch.cat([strings, 1 - strings])  # whenever all loci are balanced, all strings tie
    for T in (1e-6 / 3, 1 / 3, 1e6 / 3):
        assert select(torch.zeros(32), mirrored, 32, T).tolist() == [0, 16] * 16


@pytest.mark.parametrize("T", [0.0, 0.01, 0.3, 5.0])
def test_properties_of_the_greedy_rule(T):
    rng = torch.Generator().manual_seed(3)
    E, G = (
        torch.rand(40, 25, dtype=torch.float64, generator=rng),
        torch.randint(3, (40, 25, 7), generator=rng),
    )
    picks = select(E, G, 12, T)
    assert torch.equal(picks[:, 0], E.argmin(1))
    assert torch.equal(select(E - 40.0, G, 12, T), picks)
    assert torch.equal(select(100 * E, G, 12, 100 * T), picks)
    assert torch.equal(select(E, 7 - 2 * G, 12, T), picks)  # alleles are names
    once = select(E, G, 12, T, replacement=False)
    assert all(len(set(row)) == 12 for row in once.tolist())
    assert torch.equal(once[:, 0], E.argmin(1))
    if T == 0:
        assert torch.equal(picks, E.argmin(1, keepdim=True).expand(-1, 12)) and torch.equal(
            once, E.argsort(1)[:, :12]
        )


def test_energies_that_are_not_finite_are_never_selected():
    E, G = tensor([0.5, math.nan, -math.inf, 0.1, math.inf, 0.9]), torch.eye(6).long()
    for T in (0.0, 0.1, 100.0):
        assert set(select(E, G, 20, T).tolist()) <= {0, 3, 5}
    assert select(E, G, 3, 0.0, replacement=False).tolist() == [3, 0, 5]
    assert set(select(E, G, 20, 100.0).tolist()) == {0, 3, 5}


# -- operators and temperatures --


def test_random_genes_are_uniform_and_belong_to_their_seed():
    genes = random_genes(range(50), 40, 3, torch.tensor([2, 5, 1]))
    assert genes.shape == (50, 40, 3) and torch.equal(
        random_genes(7, 40, 3, torch.tensor([2, 5, 1]))[0], genes[7]
    )
    for locus, k in enumerate((2, 5, 1)):
        share = genes[..., locus].flatten().bincount(minlength=5) / 2000
        torch.testing.assert_close(share[:k], torch.full((k,), 1 / k), atol=0.04, rtol=0)
    assert set(random_genes(0, 10, 20).flatten().tolist()) == {0, 1}


@pytest.mark.parametrize("n", [6, 7])
def test_crossover_keeps_every_pairs_genes(n):
    rng = torch.Generator().manual_seed(4)
    genes, u = torch.randn(3, n, 50, generator=rng), torch.rand(3, n // 2, 50, generator=rng)
    children = crossover(genes, 0.3, u)
    pairs = lambda x: x[:, : n // 2 * 2].unflatten(1, (-1, 2))
    assert torch.equal(pairs(children).sort(2).values, pairs(genes).sort(2).values)
    assert torch.equal(pairs(children)[:, :, 0] != pairs(genes)[:, :, 0], u < 0.3)
    assert torch.equal(children[:, n // 2 * 2 :], genes[:, n // 2 * 2 :])
    assert torch.equal(crossover(genes, 0.0, u), genes) and torch.equal(
        pairs(crossover(genes, 1.0, u)), pairs(genes).flip(2)
    )


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_mutation_of_integers(dtype):
    genes, u = torch.tensor([[0, 1, 1, 0]] * 50_000).to(dtype), torch.rand(50_000, 4, dtype=torch.float64)
    flipped = mutate(genes, 0.1, u)
    assert flipped.dtype == dtype and torch.equal(flipped != genes, u < 0.1)
    assert torch.equal(mutate(genes, 0.0, u), genes)
    if dtype != torch.bool:
        sizes = torch.tensor([1, 2, 3, 6])
        other = mutate(genes, 0.6, u, sizes)
        assert torch.equal(other[:, 1:] != genes[:, 1:], u[:, 1:] < 0.6) and (other[:, 0] == 0).all()
        share = other[:, 3].long().bincount(minlength=6) / 50_000
        torch.testing.assert_close(share, torch.tensor([0.4] + [0.12] * 5), atol=0.01, rtol=0)


def test_mutation_of_real_numbers_flips_their_bit():
    alpha, u = torch.randn(2000, 9), torch.rand(2000, 9, dtype=torch.float64)
    new = mutate(alpha, 0.25, u)
    assert torch.equal((new.sigmoid() > 0.5) != (alpha.sigmoid() > 0.5), u < 0.25) and torch.equal(
        new.abs(), alpha.abs()
    )


def test_feedback_holds_the_entropy():
    first = random_genes(range(6), 32, 30)
    start = tensor([0.1, 1, 10, 100, 1000, 10])
    search, log = TDGA(first, knapsack(first), entropy_feedback(0.2, start)), []
    assert torch.equal(search.temperature, start)
    for _ in range(60):
        search.tell(knapsack(search.ask()))
        log.append(search.entropy)
    assert (torch.stack(log[-20:]).mean(0) - 0.2).abs().max() < 0.05


def test_one_schedule_serves_two_searches():
    first = random_genes(range(2), 8, 30)
    schedule = entropy_feedback(0.2, 5.0)
    alone, together = [], []
    for _ in range(2):
        searches = [TDGA(first, knapsack(first), schedule) for _ in range(1 + len(alone) // 2)]
        for _ in range(10):
            for s in searches:
                s.tell(knapsack(s.ask()))
        alone.append(searches[0].temperature)
        together.append(searches[-1].temperature)
    assert torch.equal(alone[0], together[1])


def test_a_search_uses_its_schedule():
    first = random_genes(range(3), 8, 30)
    search, seen = TDGA(first, knapsack(first), geometric(8, 1, 3)), []
    for _ in range(5):
        seen.append(search.temperature.tolist())
        search.tell(knapsack(search.ask()))
    assert [s[0] for s in seen] == pytest.approx([8, 4, 2, 1, 1]) and all(len(set(s)) == 1 for s in seen)
    assert TDGA(first, knapsack(first), [1.0, 2.0, 3.0]).temperature.tolist() == [1, 2, 3]
    assert TDGA(first, knapsack(first), constant(4)).temperature.tolist() == [4, 4, 4]


# -- the searches --

TARGET = torch.tensor([2, 0, 1, 1, 0, 2, 2])
wrong = lambda genes: (genes != TARGET).sum(-1).double()


def make(cls, seeds, n=10, **kwargs):
    first = random_genes(seeds, n, 7, choices=3)
    if cls is TDGA:
        kwargs = dict(T=1.0) | kwargs
    return cls(first, wrong(first), seeds=seeds, choices=3, mutation=0.1, **kwargs)


def go(search, generations, energy=wrong):
    for _ in range(generations):
        search.tell(energy(search.ask()))
    return search


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)


@pytest.mark.parametrize("cls", [TDGA, SimpleGA])
@pytest.mark.parametrize("n", [2, 9, 10])
def test_a_run_is_the_same_alone_and_in_a_crowd(cls, n):
    crowd = go(make(cls, list(range(40)), n), 15)
    for seed in (0, 17, 39):
        alone = go(make(cls, [seed], n), 15)
        assert torch.equal(alone.population[0], crowd.population[seed]) and torch.equal(
            alone.energies[0], crowd.energies[seed]
        )
    assert not torch.equal(crowd.population[0], crowd.population[1])


def test_temperatures_of_a_batch_do_not_touch_each_other():
    first = random_genes([5, 5, 5], 10, 7, choices=3)
    crowd = go(TDGA(first, wrong(first), [0.0, 1.0, 10.0], [5, 5, 5], 0.1, choices=3), 15)
    for i, T in enumerate((0.0, 1.0, 10.0)):
        assert torch.equal(go(make(TDGA, [5], T=T), 15).population[0], crowd.population[i])
    assert crowd.entropy[0] < crowd.entropy[1] < crowd.entropy[2]


FEEDBACK = dict(T=entropy_feedback(0.4, 1.0), replacement=False)


@pytest.mark.parametrize("cls, kwargs", [(TDGA, {}), (SimpleGA, {}), (TDGA, FEEDBACK)])
def test_a_killed_search_resumes_to_the_same_result(cls, kwargs):
    whole = go(make(cls, [3, 8], **kwargs), 20)
    half = go(make(cls, [3, 8], **kwargs), 12)
    saved = half.state_dict()
    half.population.fill_(0)  # what happens later must not reach into the saved state
    other = make(cls, [3, 8], **kwargs)
    other.load_state_dict(saved)
    other.population.fill_(0)
    other.load_state_dict(saved)
    assert other.generation == 12
    assert same(go(other, 8), whole)


def test_a_state_of_another_search_is_refused():
    saved = make(TDGA, [3, 8]).state_dict()
    for other in (make(TDGA, [3, 9]), make(TDGA, [3]), make(TDGA, [3, 8], 12), make(SimpleGA, [3, 8])):
        with pytest.raises(ValueError, match="another search"):
            other.load_state_dict(saved)


ALTERED = {
    "not finite": lambda s: s["entropy"].fill_(math.nan),
    "set choices": lambda s: s["population"].fill_(7),
    "set  ?choices": lambda s: s["best"].fill_(-1),
    "no individual with a finite energy": lambda s: s["energies"].fill_(math.nan),
    "energies is int64": lambda s: s.update(energies=s["energies"].long()),
    "population is ": lambda s: s.update(population=s["population"].double()),
    "generation is ": lambda s: s.update(generation=1.5),
    "generation = -1": lambda s: s.update(generation=-1),
    "another search": lambda s: s.update(best=None),
    "another  ?search": lambda s: s.clear(),
    "of another search": lambda s: s["seeds"].fill_(0),
}


@pytest.mark.parametrize("says", ALTERED)
def test_an_altered_state_is_refused_and_changes_nothing(says):
    search, saved = make(TDGA, [3, 8]), make(TDGA, [3, 8]).state_dict()
    ALTERED[says](saved)
    with pytest.raises(ValueError, match=says) as error:
        search.load_state_dict(saved)
    assert "\n" not in str(error.value)
    for name, x in make(TDGA, [3, 8]).state_dict().items():
        assert x == search.generation if name == "generation" else torch.equal(x, getattr(search, name))
    for state in (None, [], 3):
        with pytest.raises(ValueError, match="another search"):
            search.load_state_dict(state)


def test_a_state_with_a_diverged_individual_is_one():
    first = random_genes([1], 4, 3)
    energies = torch.tensor([[0.0, 1.0, math.inf, math.nan]])
    search = TDGA(first, energies, 1)
    other = TDGA(first, energies, 1)
    other.load_state_dict(search.state_dict())
    assert torch.equal(other.ask(), search.ask())


@pytest.mark.parametrize("cls", [TDGA, SimpleGA])
def test_a_pool_of_ones_own_stands_for_what_was_asked(cls):
    asked, handed = make(cls, [1, 2]), make(cls, [1, 2])
    for _ in range(3):
        pool = asked.ask()
        asked.tell(wrong(pool))
        handed.tell(wrong(pool), pool)
        pool += 1  # the caller's own again
        assert torch.equal(asked.population, handed.population) and torch.equal(asked.best, handed.best)


def test_a_pool_of_ones_own_may_have_any_size():
    search, n = make(TDGA, [1, 2]), make(TDGA, [1, 2]).population.shape[1]
    many = random_genes([5, 6], 3 * n, search.population.shape[2], choices=2)
    search.tell(wrong(many), many)
    assert search.population.shape[1] == n and search.generation == 1
    assert search.best_energy.tolist() == wrong(many).amin(1).tolist()


@pytest.mark.parametrize("cls", [TDGA, SimpleGA])
def test_what_the_caller_does_with_a_pool_does_not_reach_the_search(cls):
    clean, dirty = make(cls, [1, 2]), make(cls, [1, 2])
    for _ in range(5):
        clean.tell(wrong(clean.ask()))
        repeated = dirty.ask()
        pool = dirty.ask()
        assert torch.equal(pool, repeated)
        energies = wrong(pool)
        pool.fill_(2)
        dirty.tell(energies)
        energies.fill_(0)
    assert same(clean, dirty)
    given = random_genes([1], 4, 7, choices=3)
    search = cls(given, wrong(given), **(dict(T=1) if cls is TDGA else {}), choices=3)
    before = search.population.clone()
    given.fill_(0)
    assert torch.equal(search.population, before)


def test_selected_duplicates_are_copies():
    search = go(make(TDGA, [1], T=0.0), 1)
    assert (search.population == search.population[:, :1]).all()
    search.population[0, 0] = 1 - search.population[0, 0].clamp(max=1)
    assert not (search.population[0, 1:] == search.population[0, 0]).all(1).any()
    assert torch.equal(search.best[0], search.population[0, 1])


def test_the_pool():
    search = make(TDGA, [4, 6])
    pool = search.ask()
    assert pool.shape == (2, 21, 7) and torch.equal(pool[:, -1], search.best)
    share = (
        (make(TDGA, list(range(400))).ask()[:, :10] != make(TDGA, list(range(400))).population)
        .double()
        .mean()
    )
    assert share == pytest.approx(0.1, abs=0.01)  # parents are mutated, too
    assert make(TDGA, [4, 6], elite=False).ask().shape == (2, 20, 7)
    assert make(SimpleGA, [4, 6]).ask().shape == (2, 10, 7)


@pytest.mark.parametrize("cls", [TDGA, SimpleGA])
def test_the_elite_is_the_best_before_the_caller_and_mutation(cls):
    search = go(make(cls, [0, 1, 2]), 3)
    best, energy = search.best.clone(), search.best_energy.clone()
    assert torch.equal(wrong(best), energy) and torch.equal(energy, search.energies.amin(1))
    search.population[:] = 2
    pool = search.ask()
    assert torch.equal(pool[:, -1], best)
    search.tell(wrong(pool))
    assert (search.best_energy <= energy).all()


@pytest.mark.parametrize("cls", [TDGA, SimpleGA])
def test_the_best_is_lost_only_without_elite(cls):
    for elite in (True, False):
        search, worse = make(cls, list(range(30)), elite=elite), False
        for _ in range(20):
            before = search.best_energy
            go(search, 1)
            worse = worse or bool((search.best_energy > before).any())
        assert worse != elite


def test_without_replacement_nobody_is_taken_twice():
    search = make(TDGA, [0], T=0.0, replacement=False)
    pool = search.ask()
    search.tell(wrong(pool))
    assert search.energies[0].tolist() == wrong(pool)[0].sort().values[:10].tolist()


@pytest.mark.parametrize("cls", [TDGA, SimpleGA])
def test_diverged_individuals_do_not_win(cls):
    def energy(pool):
        E = wrong(pool)
        return E.where(pool[..., 0] != 0, math.nan)

    search = go(make(cls, list(range(20))), 10, energy)
    assert search.best_energy.isfinite().all() and (search.best[:, 0] != 0).all()
    assert cls is SimpleGA or search.energies.isfinite().all()


def test_a_tournament_is_won_by_the_best_of_three():
    "Half of the individuals diverged, one in eight is the best: what a child descends from tells who won."
    genes = torch.arange(64)[None, :, None]
    energies = torch.arange(64.0)[None].where(torch.arange(64) < 32, math.nan)
    children = torch.cat(
        [SimpleGA(genes, energies, [s], 0.0, 0.0, choices=64, elite=False).ask() for s in range(100)]
    ).flatten()
    assert (children >= 32).double().mean().item() == pytest.approx(1 / 8, abs=0.02)
    assert (children < 8).double().mean().item() == pytest.approx(1 - (7 / 8) ** 3, abs=0.02)


@pytest.mark.parametrize("cls", [TDGA, SimpleGA])
def test_searches_find_an_easy_target(cls):
    assert (go(make(cls, list(range(20)), 20), 60).best_energy == 0).all()


def test_energies_that_need_a_gradient_do_not_grow_a_graph():
    weight = torch.ones((), requires_grad=True)
    search = go(make(TDGA, [0]), 2, lambda pool: weight * wrong(pool))
    assert not search.energies.requires_grad and not search.best_energy.requires_grad


def test_the_figure_says_what_it_shows():
    methods, runs = (("TDGA, T = 10", 4), ("GA", 1)), list(itertools.product(range(5), range(3)))
    rows = [(m, s, g, 1099 if s < k and g == 2 else 1000 + g, 900, 0.3) for m, k in methods for s, g in runs]
    df = pd.DataFrame(rows, columns=["method", "seed", "generation", "best", "mean", "entropy"])
    shares = success(df)
    assert shares[["method", "found", "runs"]].values.tolist() == [["TDGA, T = 10", 4, 5], ["GA", 1, 5]]
    assert shares[["low", "high"]].values.ravel().tolist() == pytest.approx(
        [0.3755, 0.9638, 0.0362, 0.6245], abs=1e-3
    )
    fig = plot_knapsack(df)
    title = fig.get_suptitle()
    assert "T = 10 finds the optimum in 4 of 5" in title and "GA: 1" in title


G2, E2 = torch.zeros(1, 4, 3, dtype=torch.long), torch.zeros(1, 4)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: select([0, 1], [[0], [1]], 2, -0.5), "at least 0, not -0.5"),
        (lambda: select([0, 1], [[0], [1]], 2, math.nan), "finite and at least 0, not nan"),
        (lambda: select([0, 1], [[0], [1]], 2, math.inf), "finite"),
        (lambda: select([0, 1], [[0], [1]], 2, "hot"), "T must be one number.*hot"),
        (lambda: select([0, 1], [[0], [1]], 2, None), "T must be one number"),
        (lambda: select([0, 1], [[0], [1]], 2, [1.0, 2.0]), "T must be one number"),
        (lambda: free_energy([0, 1], [[0], [1]], -1), "at least 0, not -1"),
        (lambda: select([0, 1], [[0.5], [1]], 2, 1), "alleles must be integers.*float32"),
        (lambda: locus_entropy([[0.5], [1]]), "alleles must be integers"),
        (lambda: locus_entropy([0, 1]), r"shape \(..., individuals, loci\)"),
        (lambda: locus_entropy(torch.zeros(0, 3).long()), "at least 1 of each"),
        (lambda: select([0, 1, 2], [[0], [1]], 2, 1), r"shape \(2,\)"),
        (lambda: select([0, 1], [[0], [1]], 0, 1), "from 1 to 2\\*\\*31 - 1, not 0"),
        (lambda: select([0, 1], [[0], [1]], 1.5, 1), "from 1 to 2\\*\\*31 - 1, not 1.5"),
        (lambda: select([0, 1], [[0], [1]], 10**400, 1), "from 1 to"),
        (lambda: select([0, 1], [[0], [1]], 3, 1, replacement=False), "only 2 of its 2 members, and 3"),
        (lambda: select([math.nan, math.inf], [[0], [1]], 1, 1), "only 0 of its 2 members"),
        (lambda: geometric(1, 0, 10), "last must be finite and greater than 0, not 0"),
        (lambda: geometric(-1, 1, 10), "first"),
        (lambda: geometric(1, 1, 0), "generations"),
        (lambda: entropy_feedback(0, 1), "target"),
        (lambda: entropy_feedback(0.3, [1.0, 0.0]), "first"),
        (lambda: entropy_feedback(0.3, 1, -1), "rate"),
        (lambda: TDGA(G2[:, :1], E2[:, :1], 1), r"n of at least 2, not \(1, 1, 3\)"),
        (lambda: TDGA(G2[0], E2[0], 1), r"\(runs, n, loci\)"),
        (lambda: TDGA(G2, E2[:, :3], 1), r"shape \(1, 4\)"),
        (lambda: TDGA(G2, E2 + math.nan, 1), "run 0 has no individual with a finite energy"),
        (lambda: TDGA(G2, E2, -1), "at least 0, not -1"),
        (lambda: TDGA(G2, E2, lambda *a: -2.0), "at least 0, not -2"),
        (lambda: TDGA(G2, E2, [1, 2]), "one for each of 1 populations"),
        (lambda: TDGA(G2.double(), E2, 1), "alleles must be integers"),
        (lambda: TDGA(G2 + 2, E2, 1), "between 2 and 2.*set choices"),
        (lambda: TDGA(G2 - 1, E2, 1), "between -1 and -1"),
        (lambda: TDGA(G2, E2, 1, choices=[2, 2]), "one for each of 3 loci"),
        (lambda: TDGA(G2, E2, 1, choices=2.5), "one integer"),
        (lambda: TDGA(G2, E2, 1, choices=0), "at least 1"),
        (lambda: TDGA(G2, E2, 1, mutation=1.5), "mutation is a probability between 0 and 1, not 1.5"),
        (lambda: SimpleGA(G2, E2, swap=-0.1), "swap is a probability"),
        (lambda: SimpleGA(G2, E2, seeds=[1, 2]), "1 runs and 2 seeds"),
        (lambda: SimpleGA(G2, E2, seeds=[-1]), "at least 0"),
        (lambda: TDGA(G2, E2, 1).tell(torch.zeros(1, 9)), "call ask"),
        (lambda: SimpleGA(G2, E2).tell(torch.zeros(1, 4)), "call ask"),
        (lambda: (s := TDGA(G2, E2, 1), s.ask(), s.tell(torch.zeros(1, 8))), r"shape \(1, 9\)"),
        (
            lambda: (s := TDGA(G2, E2, 1), s.ask(), s.tell(torch.full((1, 9), math.nan))),
            "no individual with a finite energy",
        ),
        (lambda: random_genes([1.5], 2, 3), "integer"),
        (lambda: random_genes(0, 0, 6), "n = 0 must be a whole number of at least 1"),
        (lambda: random_genes(0, -1, 6), "n = -1 must be"),
        (lambda: random_genes(0, 2.5, 6), "n = 2.5 must be"),
        (lambda: random_genes(0, 2, 0), "M = 0 must be"),
        (lambda: random_genes(0, 2, 6, choices=0), "choices must be one integer.*at least 1; not 0"),
        (lambda: random_genes(0, 2, 6, choices=[2, 2]), "one for each of 6 loci"),
        (lambda: random_genes(0, 2, 6, choices=2.5), "one integer"),
        (
            lambda: knapsack(torch.ones(29)),
            r"30 genes, one for each item: the last axis of \(29,\) must be 30",
        ),
        (lambda: knapsack(torch.tensor(1)), r"the last axis of \(\) must be 30"),
        (lambda: knapsack(torch.full((30,), 2)), "other genes"),
        (lambda: knapsack(torch.full((30,), math.nan)), "other genes"),
        (lambda: crossover(G2, 0.5, torch.rand(2, 3)), r"\(1, 2, 3\), not \(2, 3\)"),
        (
            lambda: crossover(G2, math.nan, torch.rand(1, 2, 3)),
            "swap is a probability between 0 and 1, not nan",
        ),
        (lambda: mutate(G2, math.nan, torch.rand(1, 4, 3)), "rate is a probability"),
        (lambda: mutate(G2, "0.1", torch.rand(1, 4, 3)), "rate is a probability"),
        (lambda: mutate(G2, 0.1, torch.rand(4, 3)), r"\(1, 4, 3\), not \(4, 3\)"),
        (lambda: mutate(G2, 0.1, torch.rand(1, 4, 3), choices=[2, 2]), "one for each of 3 loci"),
        (lambda: random_genes(0, 2, 6, choices=True), "choices must be one integer"),
        (lambda: random_genes(0, 2, 6, choices="two"), "choices must be one integer"),
        (lambda: random_genes(0, 2, True), "M = True must be"),
        (lambda: locus_entropy([["a"]]), "these are none"),
        (lambda: free_energy(["a"], [[1]], 1), "energies must be numbers"),
        (lambda: geometric("hot", 1, 3), "first must be finite and greater than 0, not hot"),
        (lambda: geometric(math.nan, 1, 3), "first must be finite"),
        (lambda: entropy_feedback(0.3, []), "first must be finite"),
        (lambda: TDGA(G2.bool(), E2, 1), "integers or real numbers, not torch.bool"),
        (lambda: TDGA("genes", E2, 1), "genes must be a tensor"),
        (lambda: TDGA(G2 * math.nan, E2, 1, express=torch.Tensor.long), "genes must be finite"),
        (lambda: SimpleGA(G2, E2, mutation=None), "mutation is a probability"),
        (lambda: TDGA(G2, E2, 1).tell(torch.zeros(1, 9), G2), r"shape \(1, 4\)"),
        (lambda: TDGA(G2, E2, 1).tell(E2, G2.double()), r"must be \(1, 1 or more, 3\) of torch.int64"),
        (lambda: TDGA(G2, E2, 1).tell(E2, G2[0]), r"this pool, \(4, 3\)"),
        (lambda: TDGA(G2, E2, 1).tell(E2, G2[..., :2]), r"this pool, \(1, 4, 2\)"),
        (lambda: TDGA(G2, E2, 1).tell(E2, G2 + 2), "set choices"),
        (
            lambda: TDGA(G2, E2, 1, replacement=False).tell(E2[:, :3], G2[:, :3]),
            "only 3 of its 3 members, and 4",
        ),
        (lambda: SimpleGA(G2, E2).tell(E2[:, :3], G2[:, :3]), r"must be \(1, 4 or more, 3\)"),
        (lambda: success(pd.DataFrame({"method": []})), "no column best, generation, seed"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
