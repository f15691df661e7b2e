"""Every classifier of the library passes the suite that is shipped for anyone's."""

import numpy as np
import pytest

from closedloop.classify import BayesClassifier, LastWindowClassifier, ModelClassifier, SequenceClassifier
from closedloop.testing import ClassifierConformance, ClassifierSubject


class Averages:
    """A bandit with MABWiser's interface: mean rewards."""

    def fit(self, decisions, rewards):
        self.mean = {str(d): float(r) for d, r in zip(decisions, rewards, strict=True)}

    def predict_expectations(self):
        return self.mean


class Tags:
    """A regressor with scikit-learn's interface: ridge on the tags."""

    def fit(self, features, y, sample_weight=None):
        w = np.ones(len(y)) if sample_weight is None else sample_weight / sample_weight.mean()
        self.centre = np.average(y, weights=w)
        a = features.T @ (features * w[:, None]) + 0.01 * np.eye(features.shape[1])
        self.slope = np.linalg.solve(a, features.T @ (w * (y - self.centre)))

    def predict(self, features):
        return self.centre + features @ self.slope


class TestBayes(ClassifierConformance):
    @pytest.fixture
    def subject(self):
        return ClassifierSubject(build=lambda window, level: BayesClassifier(window, level=level))


class TestLastWindow(ClassifierConformance):
    @pytest.fixture
    def subject(self):
        return ClassifierSubject(
            build=lambda window, level: LastWindowClassifier(window, level=level),
            matures=False,
            excused={"waits_for_late_conversions": "it computes raw ratios on purpose, for comparison"},
        )


class TestSequence(ClassifierConformance):
    @pytest.fixture
    def subject(self):
        return ClassifierSubject(
            build=lambda window, level: SequenceClassifier(window, level=level),
            fractional=False,
            excused={"takes_fractional_credit": "its guarantee is for whole counts; fractions are refused"},
        )


NO_TRUTH = "a conformal interval claims the arm's next observed rate, not the truth behind it"


class TestBandit(ClassifierConformance):
    @pytest.fixture
    def subject(self):
        return ClassifierSubject(
            build=lambda window, level: ModelClassifier(window, Averages(), level=level),
            covers=False,
            excused={"intervals_hold_the_truth": NO_TRUTH},
        )


class TestRegressor(ClassifierConformance):
    @pytest.fixture
    def subject(self):
        return ClassifierSubject(
            build=lambda window, level: ModelClassifier(window, Tags(), level=level),
            covers=False,
            excused={"intervals_hold_the_truth": NO_TRUTH},
        )
