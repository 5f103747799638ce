"""The built-in improvers: a positive control and two baselines, in place of a language model. See model.py."""

from bellglass.doors.offline_model.model import IMPROVERS, OfflineModel

__all__ = ["IMPROVERS", "OfflineModel"]
