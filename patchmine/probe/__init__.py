"""Color or shape: what about its patches drives a unit, by showing them to the network changed."""
