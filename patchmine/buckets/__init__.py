"""Files in buckets, and copies of folders of them on this machine."""
