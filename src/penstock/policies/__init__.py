"""Rules about calls: who may, how much, for how much, and what may be said. Each is a `policy.Policy`."""
