"""The tests mirror the folders that they test."""
