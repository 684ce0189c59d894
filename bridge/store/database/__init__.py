"""Database connections: opened, limited and shared among threads. Drivers' errors become errors of the store."""
