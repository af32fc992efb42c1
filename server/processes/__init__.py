"""The supervisor and its workers: which bundle serves, and what happens when something dies."""
