"""Models of providers and of local servers, through litellm: `anthropic/…`, `openai/…`, `ollama/…`.

provider.py   names, keys, addresses: what the environment says        (imports nothing heavy)
messages.py   our records as litellm's messages, and its replies back  (pure)
exchange.py   what really went over HTTP, and what an error therefore means
library.py    the only importer of litellm, and its safe settings
model.py      the door itself: forecast, retries, charging
"""

from bellglass.doors.litellm_model.model import LitellmModel

__all__ = ["LitellmModel"]
