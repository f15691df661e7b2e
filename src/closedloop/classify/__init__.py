"""Classification: arms ranked from recency, volume and variance at once, each number with its interval."""

from closedloop.classify.bayes import BayesClassifier

__all__ = ["BayesClassifier"]
