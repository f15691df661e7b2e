"""What is assumed of the cause of credit: types of audience by mapping or by tag, and numbers that can be meant."""

import pytest

from closedloop.errors import ConfigurationError, InputError
from closedloop.records.arms import Arms
from closedloop.records.causes import PRIORS, CausalEvidence, TypePrior
from closedloop.records.lift import LiftResult


def test_a_mapping_comes_before_what_the_tag_says_and_unknown_audiences_are_other():
    """The mapping wins; words in the tag decide else; a tag without a known word, a missing tag and a missing column are "other"."""
    arms = Arms.of(
        ("audience",), [("Retargeting 30d",), ("cart",), ("brand terms",), ("Lookalike 1%",), ("x42",), (None,), ("rebranding",)]
    )
    found = CausalEvidence(audience_type={"cart": "prospecting"}).types(arms)
    assert found == ("retargeting", "prospecting", "brand", "prospecting", "other", "other", "other")
    assert CausalEvidence().types(Arms.of(("campaign",), [("cart",)])) == ("other",)


def test_retargeting_and_brand_are_assumed_to_cause_less_and_meet_more():
    """The stated priors say what the published trials found: less cause and more background than for prospecting."""
    for kind in ("retargeting", "brand"):
        assert PRIORS[kind].caused[0] < 0.5 * PRIORS["prospecting"].caused[0]
        assert PRIORS[kind].background[0] > 2 * PRIORS["prospecting"].background[0]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: CausalEvidence(audience_type={"x": "nonsense"}), "audience_type"),
        (lambda: CausalEvidence(priors={}), "priors"),
        (lambda: CausalEvidence(unseen=(0.0, 0.1, 0.1)), "unseen"),
        (lambda: CausalEvidence(moved=-1.0), "moved"),
        (lambda: CausalEvidence(late=1.0), "late"),
        (lambda: CausalEvidence(follows=1.01), "follows"),
        (lambda: TypePrior(caused=(0.0, 1.0), background=(1.0, 1.0)), "caused"),
        (lambda: TypePrior(caused=(1.0, 1.0), background=(1.0, 1.0), background_spreads=()), "background_spreads"),
        (lambda: TypePrior(caused=(1.0, 1.0), background=(1.0, 1.0), nothing=1.0), "nothing"),
        (lambda: TypePrior(caused=(1.0, 1.0), background=(1.0, 1.0), nothing=float("nan")), "nothing"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(make, named):
    """Types without prior, medians of zero and spreads below zero are named."""
    with pytest.raises(ConfigurationError, match=named):
        make()


def test_exposures_of_a_test_are_above_zero_and_let_credit_be_zero():
    """A test whose exposures are known says something even where nothing was credited; exposures of zero say nothing."""
    counts = {"treated": 5.0, "control": 1.0, "treated_users": 800.0, "control_users": 200.0}
    assert LiftResult(attributed=0.0, exposures=100.0, **counts).caused()[0] == pytest.approx(1.0)
    with pytest.raises(InputError, match="exposures"):
        LiftResult(attributed=1.0, exposures=0.0, **counts)
    with pytest.raises(InputError, match="attributed"):
        LiftResult(attributed=0.0, **counts)
