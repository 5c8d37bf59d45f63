"""The local stack: servers, workers, beat and Flower, supervised. A deployment shares their command lines."""
