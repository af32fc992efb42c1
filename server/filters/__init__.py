"""Filters of requests as sets of rows."""
