"""The tight crop: the smallest box of a photograph that alone brings back most of a unit's activation.

Every box is tried with the network itself, so a tight crop needs no theory of receptive fields and proves itself.
"""
