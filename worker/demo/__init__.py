"""The demo: a sample catalogue, its plans, and products listed twice."""
