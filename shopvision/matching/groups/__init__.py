"""What follows from scores: groups of equal items, reviews, pages and exports."""
