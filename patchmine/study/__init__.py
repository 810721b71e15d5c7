"""Why does a synthetic image show six fish? Pitch, canvas, corner, data or noise: measured, not guessed."""
