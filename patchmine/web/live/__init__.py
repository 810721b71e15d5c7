"""The pages and the API from a running process."""
