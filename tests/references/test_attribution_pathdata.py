"""Credit on PathData against results that other programs computed."""

import csv

import numpy as np
import pytest

from closedloop.attribute import PathCounts, attribute_paths


@pytest.fixture(scope="module")
def folder(shared_data):
    return shared_data / "pathdata"


@pytest.fixture(scope="module")
def paths(folder):
    with (folder / "pathdata.csv").open() as f:
        rows = list(csv.DictReader(f, delimiter=";"))
    columns = {"conversions": "total_conversions", "value": "total_conversion_value", "nulls": "total_null"}
    return PathCounts.of([r["path"] for r in rows], **{ours: [float(r[theirs]) for r in rows] for ours, theirs in columns.items()})


def reference(folder, name):
    with (folder / f"pathdata_{name}_reference.csv").open() as f:
        rows = list(csv.DictReader(f))
    key = next(iter(rows[0]))
    return {r[key]: {k: float(v) for k, v in r.items() if k != key} for r in rows}


def by_channel(credits, intervals):
    return dict(zip(credits.channels, intervals.estimate.tolist(), strict=True))


@pytest.mark.parametrize("order", [1, 2])
def test_markov_equals_do_attributions_exact_removal_effects(folder, paths, order):
    """Removal effects and credit of order 1 and 2 agree to 1e-9 with do-attribution 0.0.2."""
    expected = reference(folder, f"markov{order}_exact_doattribution")
    credits = attribute_paths(paths, "markov", order=order, replicates=20)
    assert len(expected) == len(credits) == 12
    assert by_channel(credits, credits.removal_effect) == pytest.approx({c: r["removal_effect"] for c, r in expected.items()}, abs=1e-9)
    assert by_channel(credits, credits.conversions) == pytest.approx(
        {c: r["attributed_conversions"] for c, r in expected.items()}, abs=1e-6
    )
    assert credits.conversion_rate == pytest.approx(0.223845135597, abs=1e-12)


@pytest.mark.parametrize("model", ["first", "last", "linear"])
def test_heuristics_equal_channel_attribution(folder, paths, model):
    """First, last and linear touch agree with ChannelAttribution 2.2.5, in conversions and in revenue."""
    expected = reference(folder, "heuristics_channelattribution")
    credits = attribute_paths(paths, model)
    assert by_channel(credits, credits.conversions) == pytest.approx({c: r[f"{model}_touch_conversions"] for c, r in expected.items()})
    assert by_channel(credits, credits.value) == pytest.approx({c: r[f"{model}_touch_value"] for c, r in expected.items()})


def test_revenue_by_markov_agrees_with_the_sampled_peer(folder, paths):
    """ChannelAttribution samples: its revenue removal effects of the large channels lie within its own noise (2 %) of the exact ones."""
    expected = reference(folder, "markov1_channelattribution_sampled")
    credits = attribute_paths(paths, "markov", replicates=20)
    total = sum(r["removal_effects_conversion_value"] for r in expected.values())
    found = by_channel(credits, credits.value)
    large = [c for c, r in expected.items() if r["removal_effects_conversion_value"] > 0.1]
    assert len(large) >= 5
    for c in large:
        assert found[c] / paths.value.sum() == pytest.approx(expected[c]["removal_effects_conversion_value"] / total, rel=0.02)


@pytest.mark.parametrize(
    "model", ["first", "last", "linear", "position", "time_decay", "shapley", "markov", "fractribution", "shapley_rate"]
)
def test_credits_sum_exactly(paths, model):
    """Conversions sum to the integer 19,785 without a rounding error, revenue to its correctly rounded sum."""
    from math import fsum

    credits = attribute_paths(paths, model, replicates=20)
    assert fsum(credits.conversions.estimate) == 19_785.0
    assert fsum(credits.value.estimate) == fsum(paths.value)
    assert np.isfinite(credits.conversions.high).all()
