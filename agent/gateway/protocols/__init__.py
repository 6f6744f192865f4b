"""Chat Completions and Responses through the gateway, whole and streamed."""
