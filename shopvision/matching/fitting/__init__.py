"""How pair models are taught and measured."""
