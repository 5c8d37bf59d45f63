"""What an item states in so many words, and what two items' statements say about each other."""
