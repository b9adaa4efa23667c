"""Distributions along rays: which bins are kept, where samples fall, what they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from cgsgan.rendering.jitter import pixel_keys, uniform_samples
from cgsgan.rendering.robust_sampling import (
    cell_lengths,
    flatten_distribution,
    invert_distribution,
    middle_places,
    nucleus,
    probability_lengths,
    share_out,
    spacing_lengths,
    stratified_places,
    unstratified_places,
)
from tests.rendering import plain_robust

# Multiples of 1/64 that sum exactly in any order: a sum that reaches a mass by rounding alone is no question here.
distributions = st.lists(st.integers(0, 40), min_size=1, max_size=24)
masses = st.sampled_from([0.1, 0.5, 0.77, 0.98, 1.0])


def distribution(counts: list[int]) -> torch.Tensor:
    return torch.tensor(counts, dtype=torch.float64) / 64


def keys(rays: int, stream: int) -> torch.Tensor:
    return pixel_keys(torch.tensor(5), torch.arange(rays), stream=stream)


@settings(max_examples=100, deadline=None)
@given(distributions, masses)
def test_the_nucleus_is_the_smallest_set_that_holds_the_mass(counts: list[int], mass: float):
    kept = nucleus(distribution(counts), mass)
    values = [c / 64 for c in counts]
    total = sum(values)
    if total == 0:
        values, total = [1.0] * len(values), float(len(values))
    held = sorted((v / total for v, k in zip(values, kept) if k), reverse=True)
    left = [v / total for v, k in zip(values, kept) if not k]
    assert sum(held) >= mass - 1e-12
    assert sum(held[:-1]) < mass
    assert not left or max(left) <= held[-1] + 1e-12  # no smaller set holds more
    if mass < 1:  # the sum of all may round to less than 1
        assert set(kept.nonzero().flatten().tolist()) == plain_robust.nucleus(values, mass)


def test_the_nucleus_keeps_both_surfaces_of_a_pixel():
    bins = torch.arange(192)
    front, back = (torch.exp(-(((bins - place) / 1.5) ** 2) / 2) for place in (60, 131))
    two = 0.7 * front / front.sum() + 0.3 * back / back.sum() + 1e-6
    kept = nucleus(two, 0.98)
    assert kept[58:63].all()
    assert kept[129:134].all()
    assert int(kept.sum()) < 20
    positions = invert_distribution(flatten_distribution(kept), middle_places(20, two))
    near, far = ((positions - place).abs() < 6 for place in (60, 131))
    assert bool((near | far).all())
    assert min(int(near.sum()), int(far.sum())) >= 8  # flat: the back has as many as the front
    drawn = invert_distribution(two, middle_places(20, two))
    assert int(((drawn - 131).abs() < 6).sum()) == 6  # as it is, the back has its 30 %


def test_ties_take_the_nearer_bin_and_nothing_at_all_is_uniform():
    assert nucleus(torch.tensor([1.0, 1.0, 1.0, 1.0]), 0.5).tolist() == [True, True, False, False]
    assert nucleus(torch.tensor([0.0, 3.0, 0.0]), 0.98).tolist() == [False, True, False]
    assert nucleus(torch.zeros(2, 4), 0.7).tolist() == [[True, True, True, False]] * 2
    assert nucleus(torch.tensor([0.25, 0.5, 0.25]), 1.0).all()
    torch.testing.assert_close(invert_distribution(torch.zeros(4), torch.tensor([0.0, 0.5])), torch.tensor([0.0, 2.0]))


@settings(max_examples=100, deadline=None)
@given(distributions.filter(any), st.lists(st.floats(0, 1, width=32), min_size=1, max_size=9).map(sorted))
def test_positions_are_those_of_the_plain_inverse(counts: list[int], places: list[float]):
    p = distribution(counts)
    positions = invert_distribution(p, torch.tensor(places, dtype=torch.float64))
    plain = [plain_robust.invert(p.tolist(), place) for place in places]
    cumulative = np.concatenate([[0], np.cumsum(counts) / sum(counts)])
    # A place at the very edge of a bin may go to either side of what is left out; its probability is the same.
    reached = [np.interp(x, range(len(cumulative)), cumulative) for x in positions.tolist()]
    assert reached == pytest.approx(places, abs=1e-12)
    inside = [i for i, u in enumerate(places) if np.abs(cumulative - u).min() > 1e-9]
    assert [positions[i].item() for i in inside] == pytest.approx([plain[i] for i in inside], abs=1e-9)
    assert bool((positions.diff() >= 0).all())


def test_no_sample_falls_where_nothing_is():
    p = torch.tensor([0.0, 0.0, 1.0, 0.0, 1e-4, 0.0])
    edges = torch.tensor([0.0, 1.0 - 2**-24, 1.0])
    places = torch.cat([edges, uniform_samples(torch.tensor([3]), 20000)[0]]).sort().values
    positions = invert_distribution(p, places)
    bins = (positions.ceil() - 1).clamp_min(0).long()  # the upper edge of a bin belongs to it
    first = positions == positions.floor()
    assert bool((p[bins] > 0)[~first].all())
    assert float(positions[0]) == 2.0
    assert float(positions[-1]) == 5.0


@pytest.mark.parametrize("strata", [None, 16])
def test_samples_follow_their_distribution(strata: int | None):
    p = torch.tensor([0.05, 0.0, 0.4, 0.2, 0.0, 0.0, 0.3, 0.05], dtype=torch.float64)
    rays = 4000
    if strata is None:
        places = unstratified_places(keys(rays, 0), 20)
    else:
        places = stratified_places(keys(rays, 0), keys(rays, 1), count=20, strata=strata)
    positions = invert_distribution(p.expand(rays, -1), places.double())
    counts = torch.bincount(positions.flatten().long(), minlength=8)
    assert counts[p == 0].sum() == 0
    assert chisquare(counts[p > 0].numpy(), (p[p > 0] * rays * 20).numpy()).pvalue > 1e-3
    cumulative = np.concatenate([[0.0], p.cumsum(0).numpy()])
    reached = np.interp(positions[:, 7].numpy(), range(9), cumulative)
    one_of_each = np.interp(positions.flatten().numpy(), range(9), cumulative)
    assert kstest(one_of_each, "uniform").pvalue > 1e-3
    if strata:  # one sample of a stratified ray is nothing like uniform
        assert reached.std() < 0.1


def test_unstratified_places_are_independent():
    places = unstratified_places(keys(2000, 0), 16)
    counts = torch.stack([((places * 4).long() == q).sum(dim=1) for q in range(4)], dim=1).double()
    assert float(counts.var(dim=0).mean()) == pytest.approx(16 * 0.25 * 0.75, rel=0.1)  # binomial


@pytest.mark.parametrize(("count", "strata"), [(20, 16), (16, 16), (7, 3), (33, 8), (5, 5), (20, 1)])
def test_every_stratum_has_its_floor_and_the_rest_is_spread(count: int, strata: int):
    rays = 3000
    places = stratified_places(keys(rays, 0), keys(rays, 1), count=count, strata=strata)
    assert bool((places.diff(dim=1) >= 0).all())
    assert 0 <= float(places.min()) <= float(places.max()) <= 1
    held = torch.stack([((places.double() * strata).long() == s).sum(dim=1) for s in range(strata)], dim=1)
    each, rest = divmod(count, strata)
    assert int(held.min()) == each
    assert int(held.max()) == each + (rest > 0)
    assert bool((held.sum(dim=1) == count).all())
    if rest:
        more = (held - each).sum(dim=0).numpy()
        # Drawn without repeating: the counts vary less than independent ones, so this is on the safe side.
        assert chisquare(more).pvalue > 1e-3


def test_places_are_functions_of_the_pixel_not_of_the_chunk():
    whole = stratified_places(keys(64, 0), keys(64, 1), count=20, strata=16)
    part = stratified_places(keys(64, 0)[40:50], keys(64, 1)[40:50], count=20, strata=16)
    assert torch.equal(whole[40:50], part)
    assert not torch.equal(whole[40], whole[41])


@settings(max_examples=60, deadline=None)
@given(distributions.filter(any), st.lists(st.floats(0, 1, width=32), min_size=1, max_size=9).map(sorted))
def test_cells_share_the_kept_bins_among_the_samples(counts: list[int], places: list[float]):
    kept = nucleus(distribution(counts), 0.9)
    positions = invert_distribution(flatten_distribution(kept).double(), torch.tensor(places, dtype=torch.float64))
    lengths = cell_lengths(kept, positions)
    assert float(lengths.sum()) == pytest.approx(int(kept.sum()))
    assert bool((lengths >= 0).all())
    plain = plain_robust.cells(set(kept.nonzero().flatten().tolist()), positions.tolist())
    assert lengths.tolist() == pytest.approx(plain, abs=1e-9)


def test_middles_stand_for_equal_parts_and_gaps_for_none():
    kept = torch.tensor([False, True, True, False, False, False, True, False])
    positions = invert_distribution(flatten_distribution(kept), middle_places(6, torch.zeros(1)))
    torch.testing.assert_close(positions, torch.tensor([1.25, 1.75, 2.25, 2.75, 6.25, 6.75]))
    torch.testing.assert_close(cell_lengths(kept, positions), torch.full((6,), 0.5))


def test_sums_with_lengths_by_probability_tend_to_the_integral():
    """Of any function along the ray, such as density, even where two modes lie far apart."""
    p = torch.tensor([0.0, 0.1, 0.5, 0.1, 0.0, 0.0, 0.0, 0.25, 0.05], dtype=torch.float64)
    values = torch.tensor([9.0, 1.0, 3.0, 2.0, 9.0, 9.0, 9.0, 5.0, 4.0], dtype=torch.float64)  # 9: never seen
    rays = 4000
    for places in (
        unstratified_places(keys(rays, 0), 64),
        stratified_places(keys(rays, 0), keys(rays, 1), count=16, strata=16),
    ):
        positions = invert_distribution(p.expand(rays, -1), places.double())
        lengths = probability_lengths(p.expand(rays, -1), places.double(), positions)
        sums = (lengths * values[positions.long()]).sum(dim=1)
        assert float(sums.mean()) == pytest.approx(float(values[p > 0].sum()), rel=0.02)  # observed 0.005
    middles = middle_places(10, p)
    positions = invert_distribution(p, middles)
    plain = [0.1 / float(p[int(position)]) for position in positions]
    assert probability_lengths(p, middles, positions).tolist() == pytest.approx(plain)


def test_spacings_are_those_to_the_neighbours():
    lengths = spacing_lengths(torch.tensor([0.1, 1.0, 2.0, 6.0]), 7.0)
    # before the first no more than there is; behind the last no more than there is
    torch.testing.assert_close(lengths, torch.tensor([0.1 + 0.45, 0.45 + 0.5, 0.5 + 2.0, 2.0 + 1.0]))


@pytest.mark.parametrize(("pixels", "share", "wide"), [(4096, 0.1, 410), (100, 0.1, 10), (7, 0.0, 0), (7, 1.0, 7)])
def test_the_widest_share_is_exact(pixels: int, share: float, wide: int):
    widths = (uniform_samples(torch.tensor([[1, 2], [3, 4]]), pixels) * 12).long()
    narrow, widest = share_out(widths, share)
    assert widest.shape == (2, 2, wide)
    both = torch.cat([narrow, widest], dim=-1)
    assert torch.equal(both.sort(dim=-1).values, torch.arange(pixels).expand(2, 2, -1))
    if 0 < wide < pixels:
        assert bool((widths.gather(-1, widest).amin(-1) >= widths.gather(-1, narrow).amax(-1)).all())


def test_of_equal_widths_the_first_are_wide():
    narrow, wide = share_out(torch.tensor([3, 1, 3, 3, 2]), 0.4)
    assert wide.tolist() == [0, 2]
    assert narrow.tolist() == [1, 3, 4]
