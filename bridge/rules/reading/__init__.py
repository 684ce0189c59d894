"""Mapping files → compiled sources and rules, or every error in every file with its position."""
