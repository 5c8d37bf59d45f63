"""What a product's own picture shows: one class for the whole of it."""
