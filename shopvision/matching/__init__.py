"""Same-item matching: which items of a catalogue are the same product."""
