"""The tools of the embedded example `tools`."""


def mul(a: int, b: int) -> int:
    """The product of two numbers.

    Args:
        a: the first.
        b: the second.
    """
    return a * b


def add(a: int, b: int) -> int:
    """The sum of two numbers.

    Args:
        a: the first.
        b: the second.
    """
    return a + b
