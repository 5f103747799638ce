"""The offline improver: a deterministic stand-in for a language model, and a positive control. See model.py."""

from bellglass.doors.offline_model.model import VARIANTS, OfflineModel

__all__ = ["VARIANTS", "OfflineModel"]
