"""Which pictures represent a promotion plan or an item."""
