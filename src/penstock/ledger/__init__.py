"""What is at rest about money and identity: usage by attempt, and API keys. SQLite, or PostgreSQL."""
