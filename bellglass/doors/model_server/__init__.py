"""A small HTTP server that speaks like a model provider: for tests, labs, and driving a loop over real HTTP.

`ModelServer(answerer)` answers on 127.0.0.1 in a thread. The answerer is any `ports.Model` (say the offline improver),
or one of `scripts`: a function from a request to a reply or to a piece of bad behaviour. It understands the chat calls
of four dialects (OpenAI's two, Anthropic, Ollama), without streaming.

Not covered: it checks no key and serves whoever reaches the loopback address. It is a double, not a thing to expose.
"""

from bellglass.doors.model_server.dialects import Fault
from bellglass.doors.model_server.http import Answer, Asked, ModelServer, Script

__all__ = ["Answer", "Asked", "Fault", "ModelServer", "Script"]
