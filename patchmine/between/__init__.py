"""Two indexes of the same photographs side by side: which units kept their patches, and which unit became of which."""
