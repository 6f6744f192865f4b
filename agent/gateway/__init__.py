"""An OpenAI-compatible proxy: an unchanged application's model may consult the rules, by a new `base_url`.

The rule tool is added to the caller's request; turns in which the model consults are carried out here and
stay hidden; everything else passes through as it came.
"""

from agent.gateway.settings import Settings

__all__ = ["Settings"]
