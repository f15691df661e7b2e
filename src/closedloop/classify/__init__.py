"""Classification: arms ranked from recency, volume and variance at once, each number with its interval."""

from closedloop.classify.adapter import ModelClassifier
from closedloop.classify.bayes import BayesClassifier
from closedloop.classify.last_window import LastWindowClassifier
from closedloop.classify.sequence import SequenceClassifier

__all__ = ["BayesClassifier", "LastWindowClassifier", "ModelClassifier", "SequenceClassifier"]
