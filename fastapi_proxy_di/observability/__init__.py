"""Says what happened to an exchange: the access record, and why a destination was picked."""
