"""Quality of rule retrieval for questions in other languages than English."""
