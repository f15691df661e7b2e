"""Attribution feedback: credit with a window and an interval."""

from closedloop.attribute.attribution import MODELS, WindowedAttribution, credit_intervals
from closedloop.attribute.state import AttributionState

__all__ = ["MODELS", "AttributionState", "WindowedAttribution", "credit_intervals"]
