"""L2: what those see who run the gateway: metrics, traces, logs. Imports `types` only."""
