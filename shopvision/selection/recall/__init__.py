"""Pictures found by what a text says, with a tower for each (after the ALIGN model of AutoImageSelection)."""
