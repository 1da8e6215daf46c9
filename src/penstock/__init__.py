"""Penstock: a streaming gateway for language models whose answers are durable streams."""

__version__ = "0.1.0"
