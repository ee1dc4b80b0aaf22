"""What a running job records of itself: metrics, trackers, throughput, profile, environment; and its watchdog."""
