"""Quality of rule retrieval."""
