"""Measures of quality shared by every trained model: numpy in, numbers out, each with its random expectation."""
