"""`python -m retrac`, and so `accelerate launch -m retrac`."""

from retrac.cli.main import run

if __name__ == "__main__":
    run()
