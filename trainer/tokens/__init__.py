"""Renders episodes as token ids: which tokens the policy wrote, and where it decides."""
