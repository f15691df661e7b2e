"""`ModelClassifier`: any model with ``fit`` and ``predict``, or a bandit with ``predict_expectations``, as a classifier.

Law of this file: it imports no model library. A model's point prediction gets a split-conformal interval; it claims coverage of the
arm's next observed rate, for arms that are exchangeable, and nothing of the truth behind it.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.classify.assemble import assemble
from closedloop.classify.bayes import check_window
from closedloop.classify.evidence import Evidence, KindEvidence, gather, now_microseconds
from closedloop.classify.rates import Rates, independent
from closedloop.errors import ConfigurationError, InputError
from closedloop.records.interval import FloatArray
from closedloop.records.moments import to_us
from closedloop.records.outcomes import Outcomes
from closedloop.records.signal import Signals
from closedloop.records.window import AttributionWindow
from closedloop.stats.gamma_poisson import totals

_TINY = 1e-9


@attrs.frozen
class ModelClassifier:
    """Rank arms by a model of someone else's.

    Two kinds of model are known by what they offer: bandits with ``fit(decisions, rewards)`` and ``predict_expectations() -> {arm: value}``
    (MABWiser's interface; its arms are ``outcomes.arms.labels()``, its rewards the arms' ratios), and regressors with ``fit(X, y)`` and
    ``predict(X)`` (scikit-learn's), given the one-hot tags of the arms and, where the model takes it, ``sample_weight``. Cohorts of the
    older half of the days train the model, the newer half calibrates the interval by scaled absolute residuals.

    Args:
        window: The attribution window of the evidence.
        model: The model; it is fitted again at each call.
        level: Level of the intervals.
        seed: Seed of the draws behind P(best).

    Raises:
        ConfigurationError: The model offers neither interface.

    References:
        Lei, G'Sell, Rinaldo, Tibshirani & Wasserman (2018), "Distribution-free predictive inference for regression".
    """

    window: AttributionWindow
    model: Any
    level: float = attrs.field(default=0.9, kw_only=True)
    seed: int = attrs.field(default=0, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not 0.0 < self.level < 1.0:
            raise ConfigurationError("a level lies between 0 and 1", "level", self.level, "use 0.9 for a 90 % interval")
        if not (hasattr(self.model, "fit") and (hasattr(self.model, "predict_expectations") or hasattr(self.model, "predict"))):
            valid = ("fit, predict", "fit, predict_expectations")
            raise ConfigurationError("the model offers no known interface", "model", type(self.model).__name__, None, valid)

    def classify(self, outcomes: Outcomes, *, now: datetime | None = None) -> Signals:
        """Return the complete arms ranked by the model, with conformal intervals.

        Raises:
            WindowMismatchError: The outcomes were made under another window.
            InputError: A cohort lies in the future, a count is not valid, or the model predicts something that is not a finite number.
        """
        check_window(self.window, outcomes)
        now_us = None if now is None else to_us(now)
        evidence = gather(outcomes, half_life_days=None, now_us=now_us)
        rates = {name: self._rates(outcomes, evidence, e) for name, e in evidence.kinds.items()}
        name = f"ModelClassifier({type(self.model).__name__}, conformal)"
        now_ = now_microseconds(outcomes, now_us)
        return assemble(outcomes, evidence, rates, level=self.level, seed=self.seed, now_us=now_, classifier=name, kind="conformal")

    def _rates(self, outcomes: Outcomes, evidence: Evidence, e: KindEvidence) -> Rates:
        n, c = len(evidence.arms), outcomes.cohorts
        day = c.day[e.rows]
        late = day > (int(day.min()) + int(day.max())) // 2
        mature = c.exposures[e.rows] * c.maturity[e.rows]
        halves = []
        for half in (~late, late):
            count, exposure = totals(e.unit[half], c.credit[e.rows][half], n), totals(e.unit[half], mature[half], n)
            halves.append((count, exposure))
        features, labels = _one_hot(evidence), evidence.arms.take(evidence.canonical).labels()
        (old_count, old_exposure), (new_count, new_exposure) = halves
        fitted = self._predict(labels, features, old_count, old_exposure)
        use = (new_exposure > 0) & (old_exposure > 0)
        observed = new_count[use] / new_exposure[use]
        score = np.abs(observed - fitted[use]) * np.sqrt(new_exposure[use] / np.maximum(fitted[use], _TINY))
        count, exposure = old_count + new_count, old_exposure + new_exposure
        estimate = self._predict(labels, features, count, exposure)
        rank = math.ceil((len(score) + 1) * self.level)
        # The next stretch is taken to be as long as the calibration stretch.
        scale = np.sqrt(np.maximum(estimate, _TINY) / np.maximum(new_exposure, _TINY))
        reach = np.full(n, np.inf) if rank > len(score) else np.sort(score)[rank - 1] * scale
        reach = np.where(new_exposure > 0, reach, np.inf)
        low, high = np.maximum(estimate - reach, 0.0), estimate + reach
        sd = np.where(np.isfinite(reach), np.maximum(reach, 1e-6 * np.maximum(estimate, _TINY)) / 1.645, np.maximum(estimate, _TINY))
        shape = np.maximum(estimate, _TINY) ** 2 / sd**2
        posterior = independent(shape, shape / np.maximum(estimate, _TINY), volume=count)
        return attrs.evolve(posterior, fixed=(low, high), point=estimate)

    def _predict(self, labels: list[str], features: FloatArray, count: FloatArray, exposure: FloatArray) -> FloatArray:
        """Return the model's rate of every arm after fitting it to the arms' ratios, shape (A,)."""
        seen = np.flatnonzero(exposure > 0)
        if not len(seen):
            return np.zeros(len(count))
        ratio = count[seen] / exposure[seen]
        if hasattr(self.model, "predict_expectations"):
            self.model.fit(np.asarray(labels)[seen], np.asarray(ratio))
            expectations = self.model.predict_expectations()
            out = np.array([float(expectations.get(label, 0.0)) for label in labels])
        else:
            try:
                self.model.fit(features[seen], ratio, sample_weight=exposure[seen])
            except TypeError:  # a model without weights
                self.model.fit(features[seen], ratio)
            out = np.asarray(self.model.predict(features), dtype=np.float64).reshape(-1)
        if len(out) != len(count) or not np.isfinite(out).all():
            raise InputError("the model must predict a finite number for every arm", "model", type(self.model).__name__)
        return np.asarray(np.maximum(out, 0.0))


def _one_hot(evidence: Evidence) -> FloatArray:
    """Return the tags of the arms in canonical order as zeros and ones, shape (A, tags)."""
    arms = evidence.arms.take(evidence.canonical)
    parts: list[npt.NDArray[np.bool_]] = [arms.codes[:, [k]] == np.arange(len(v)) for k, v in enumerate(arms.vocabs)]
    return np.concatenate(parts, axis=1).astype(np.float64) if parts else np.zeros((len(arms), 0))
