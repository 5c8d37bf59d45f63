"""Training pairs from social posts: a garment in the photo, and the thumbnail of the product that is tagged."""
