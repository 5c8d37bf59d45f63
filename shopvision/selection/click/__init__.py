"""Which picture of an item people will click: two pictures of one item compared, in the light of what it belongs to."""
