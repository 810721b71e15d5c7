"""The index in a browser: `serve` answers from a running process, `site` writes the same pages as plain files."""
