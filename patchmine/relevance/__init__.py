"""Relevance: how much each unit contributes to the network's decision on each photograph."""
