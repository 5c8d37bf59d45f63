"""What an item is, and how it reads: records, attribute strings, codes, texts, pairs of items, splits."""
