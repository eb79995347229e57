"""Models aligned with the rewards: data to tune on, samples and their rewards, the methods, what each gave."""
