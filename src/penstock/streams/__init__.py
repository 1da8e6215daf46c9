"""The log: durable, ordered, finite streams of entries, and the stores that keep them."""
