"""Mutation testing: one small change at a time, and the question whether a test notices."""
