"""Many processes that share a store: what it costs, and how soon all know what one finds out."""
