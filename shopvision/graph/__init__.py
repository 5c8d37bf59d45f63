"""How items, their values and their pictures relate: triples, translation in one space, and its loss."""
