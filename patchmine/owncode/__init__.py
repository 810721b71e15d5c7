"""A network of the user's own: its file loaded as Python loads it, and what that code raises told in one line."""
