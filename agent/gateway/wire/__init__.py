"""HTTP as the gateway speaks it: requests, replies, the upstream, server-sent events."""
