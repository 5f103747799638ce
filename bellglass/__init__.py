"""bellglass: a real, miniature recursive-improvement testbed.

Importing this package does nothing: no folders, no network, no heavy library.
"""

__version__ = "0.1.0"
