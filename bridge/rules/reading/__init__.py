"""Mapping files → compiled sources and rules, or every error of every file with its place."""
