"""`patchmine demo`."""


def demo() -> None:
    """x"""
