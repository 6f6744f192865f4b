"""Builds a report from named episode logs."""
