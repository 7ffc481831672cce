def mul(a: int, b: int) -> int:
    """The product of two numbers.

    Args:
        a: the first.
        b: the second.
    """
    return a * b


async def add(a: int, b: int) -> int:
    """The sum of two numbers.

    Args:
        a: the first.
        b: the second.
    """
    return a + b


class Bench:
    """A calculator that counts what it was asked, with TRL's `environment_factory` in mind."""

    def reset(self, **row):
        self.used = 0

    def mul(self, a: int, b: int) -> int:
        """The product of two numbers.

        Args:
            a: the first.
            b: the second.
        """
        self.used += 1
        return a * b

    def add(self, a: int, b: int) -> int:
        """The sum of two numbers.

        Args:
            a: the first.
            b: the second.
        """
        self.used += 1
        return a + b


def sparing(completions, environments, **columns):
    """Less for every call behind the first."""
    return [-0.1 * max(0, environment.used - 1) for environment in environments]
