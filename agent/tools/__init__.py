"""Tools that a model may call: the rule tool and custom tools."""
