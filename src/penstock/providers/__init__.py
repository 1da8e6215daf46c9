"""Providers: address, credentials, dialect, capabilities and quirks of each who runs models."""
