"""Audit log, metrics, traces and access logs."""
