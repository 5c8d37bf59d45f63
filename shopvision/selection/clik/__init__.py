"""CLIK, topic-dependent image ranking: data, model, training, evaluation, prediction."""
