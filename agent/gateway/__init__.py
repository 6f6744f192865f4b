"""An OpenAI-compatible proxy that lets the model of an unchanged application consult the safety rules.

The application only changes its `base_url`. The gateway adds the rule tool to each request, carries out the
turns in which the model consults, and hides them from the application. It forwards the rest unchanged.
"""

from agent.gateway.settings import Settings

__all__ = ["Settings"]
