"""`retrac methods`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Methods:
    """List the methods of attribution: what each one tells, how well, and where it is from."""

    def __call__(self) -> None:
        """Print them."""
        from retrac.cli.tables import print_methods

        print_methods()
