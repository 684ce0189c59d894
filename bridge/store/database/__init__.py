"""Connections to the database: opened, bounded, shared among threads; drivers' errors become errors of the store."""
