"""Ranking the pictures of a promotion plan by its topic: data, model, training, evaluation, prediction."""
