"""Acts on pools: the supervisor with its timers, the prober, the events."""
