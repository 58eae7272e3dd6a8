"""Opens connections to destinations, for every transport."""
