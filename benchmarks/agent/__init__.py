"""The agent and the gateway: overhead and concurrency."""
