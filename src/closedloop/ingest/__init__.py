"""Ingestion: raw rows become events, with meaning attached and nothing lost."""

from closedloop.ingest.claims import PlatformClaims, platform_claims
from closedloop.ingest.identity import repeated_content
from closedloop.ingest.ingestor import TableIngestor
from closedloop.ingest.keeping import load_quarantine, save_quarantine
from closedloop.ingest.landing import landing_tags
from closedloop.ingest.presets import PRESETS, Preset
from closedloop.ingest.privacy import Privacy, forget_quarantined, forget_user
from closedloop.ingest.recorder import EventRecorder, TagRegistry
from closedloop.ingest.schema import event_schema
from closedloop.ingest.settling import settle
from closedloop.ingest.skew import ClockSkew, clock_skew, corrected_clocks

__all__ = [
    "PRESETS",
    "ClockSkew",
    "EventRecorder",
    "PlatformClaims",
    "Preset",
    "Privacy",
    "TableIngestor",
    "TagRegistry",
    "clock_skew",
    "corrected_clocks",
    "event_schema",
    "forget_quarantined",
    "forget_user",
    "landing_tags",
    "load_quarantine",
    "platform_claims",
    "repeated_content",
    "save_quarantine",
    "settle",
]
