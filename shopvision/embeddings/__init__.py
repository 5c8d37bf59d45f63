"""From pictures to stored vectors: what to embed, the pipeline that does it, and where the results go."""
