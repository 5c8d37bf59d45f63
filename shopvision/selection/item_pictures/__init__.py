"""Which pictures represent an item: found by its text, ranked by what people click."""
