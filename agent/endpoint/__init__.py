"""Talks to a model: Chat Completions and Responses, one retry loop, provider quirks."""
